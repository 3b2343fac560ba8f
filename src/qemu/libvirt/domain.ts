import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { LacunaError } from '../../errors/index.js';
import {
  childOf,
  childrenOf,
  parseXml,
  Virsh,
  type VirshDomain,
  type XmlElement,
} from '../virsh/index.js';

/** For a backup to be gone that was told to end. */
const END_MS = 30_000;
const PAUSE_MS = 50;

/** A domain of libvirt's, with the calls that backups need. Nothing is kept: libvirt is asked each time. */
export class Domain {
  readonly name: string;
  readonly uuid: string;
  readonly #virsh: Virsh;
  readonly #which: readonly string[];

  /** @throws LacunaError ERR_LIBVIRT where there is none of this name, id or UUID. */
  static async find(connect: string | undefined, which: string, signal?: AbortSignal) {
    const virsh = new Virsh(connect);
    const uuid = (await virsh.run('domuuid', ['--domain', which], { signal })).trim();
    const name = (await virsh.run('domname', ['--domain', uuid], { signal })).trim();
    return new Domain(virsh, name, uuid);
  }

  private constructor(virsh: Virsh, name: string, uuid: string) {
    this.#virsh = virsh;
    this.name = name;
    this.uuid = uuid;
    this.#which = ['--domain', uuid];
  }

  /** How another process finds it. */
  get address(): VirshDomain {
    const { connect } = this.#virsh;
    return { ...(connect !== undefined && { connect }), uuid: this.uuid };
  }

  isSame({ connect, uuid }: VirshDomain): boolean {
    return uuid === this.uuid && connect === this.#virsh.connect;
  }

  async isRunning(): Promise<boolean> {
    return (await this.#list('list', '--uuid')).includes(this.uuid);
  }

  /** libvirt forgets it, with its checkpoints, when it ends. */
  async isTransient(): Promise<boolean> {
    return (await this.#list('list', '--uuid', '--transient')).includes(this.uuid);
  }

  /** Its definition as it is now, as text. */
  async xml(signal?: AbortSignal): Promise<string> {
    return await this.#run('dumpxml', [], signal);
  }

  /** Bytes of its disks, by their names. */
  async sizes(signal?: AbortSignal): Promise<Map<string, number>> {
    const text = await this.#virsh.run('domstats', ['--block', this.uuid], { signal });
    const values = new Map(
      [...text.matchAll(/^\s*(block\.\d+\.(?:name|capacity))=(.*)$/gm)].map((m) => [m[1], m[2]]),
    );
    const names = [...values].filter(([key]) => key.endsWith('.name'));
    return new Map(
      names.map(([key, name]) => [name, Number(values.get(key.replace('name', 'capacity')) ?? 0)]),
    );
  }

  /** The backup that runs, ours or another one; undefined where none does. */
  async backup(): Promise<XmlElement | undefined> {
    try {
      return parseXml(await this.#run('backup-dumpxml'), 'the backup of the domain');
    } catch (error) {
      // libvirt has a code of its own for this; virsh passes on its words alone.
      if (/no domain backup job/i.test((error as Error).message)) return undefined;
      if (await this.isRunning()) throw error;
      return undefined;
    }
  }

  /** Where the NBD server of the running backup listens; undefined without a backup, or where that is no Unix socket. */
  async backupSocket(): Promise<string | undefined> {
    const backup = await this.backup();
    const server = backup && childOf(backup, 'server');
    return server?.getAttribute('socket') ?? undefined;
  }

  /**
   * Begins a backup. When it fails with ERR_TIMEOUT, it may have begun.
   *
   * @param files where its XML is, and that of its checkpoint
   */
  async beginBackup(backupXml: string, checkpointXml: string | undefined): Promise<void> {
    const checkpoint = checkpointXml === undefined ? [] : ['--checkpointxml', checkpointXml];
    await this.#run('backup-begin', ['--backupxml', backupXml, ...checkpoint]);
  }

  /**
   * Ends the backup whose server listens at a socket, and waits until it is gone.
   *
   * @throws LacunaError ERR_MACHINE_LEFTOVERS
   */
  async endBackup(socket: string): Promise<void> {
    let refusal: unknown;
    for (const end = performance.now() + END_MS; performance.now() < end; ) {
      if ((await this.backupSocket()) !== socket) return;
      await this.#run('domjobabort').catch((error) => {
        refusal = error;
      });
      if ((await this.backupSocket()) !== socket) return;
      await sleep(PAUSE_MS);
    }
    const why = refusal === undefined ? '' : `: ${(refusal as Error).message}`;
    throw new LacunaError(
      'ERR_MACHINE_LEFTOVERS',
      `${this.name}: the backup does not end${why}; call recover() later`,
      { device: this.name, cause: refusal, retryable: true },
    );
  }

  /** The names of its checkpoints. */
  async checkpoints(signal?: AbortSignal): Promise<string[]> {
    return lines(await this.#run('checkpoint-list', ['--name'], signal));
  }

  /** A checkpoint, with the definition that the domain had then, as text. */
  checkpointXml(name: string): Promise<string> {
    return this.#run('checkpoint-dumpxml', ['--checkpointname', name]);
  }

  /**
   * How much is marked since a checkpoint: bytes by the names of the disks that it covers.
   *
   * @throws LacunaError ERR_LIBVIRT, where its bitmaps are missing or broken, say.
   */
  async dirtyBytes(checkpoint: string): Promise<Map<string, number>> {
    const args = ['--checkpointname', checkpoint, '--no-domain', '--size'];
    const xml = parseXml(await this.#run('checkpoint-dumpxml', args), 'the checkpoint');
    return new Map(
      childrenOf(childOf(xml, 'disks'), 'disk')
        .filter((disk) => disk.getAttribute('checkpoint') === 'bitmap')
        .map((disk) => [disk.getAttribute('name') ?? '', Number(disk.getAttribute('size') ?? 0)]),
    );
  }

  /**
   * Removes a checkpoint with its bitmaps; harmless where it is gone.
   *
   * @returns a warning where only what libvirt knows of it could be removed, because its bitmaps are missing or broken.
   * @throws LacunaError ERR_MACHINE_LEFTOVERS
   */
  async deleteCheckpoint(name: string): Promise<string[]> {
    if (!(await this.checkpoints()).includes(name)) return [];
    const which = ['--checkpointname', name];
    try {
      await this.#run('checkpoint-delete', which);
      return [];
    } catch (cause) {
      if (!(await this.checkpoints()).includes(name)) return [];
      const isBroken = (await this.isRunning()) && (await this.#isBroken(name));
      if (!isBroken) {
        const what = `${this.name}: the checkpoint ${name} does not go: ${(cause as Error).message}`;
        throw new LacunaError('ERR_MACHINE_LEFTOVERS', what, {
          ...{ device: this.name, cause, retryable: true },
        });
      }
      await this.#run('checkpoint-delete', [...which, '--metadata']);
      return [
        `bitmaps of the checkpoint ${name} are missing or broken: libvirt has forgotten it, and what is left of them stays in the images`,
      ];
    }
  }

  /** Makes a checkpoint known to libvirt again, from a file with what it said of it; its bitmaps are checked. */
  async redefine(file: string): Promise<void> {
    await this.#run('checkpoint-create', [
      ...['--xmlfile', file, '--redefine', '--redefine-validate'],
    ]);
  }

  /**
   * Looks whether the bitmaps of a checkpoint can be used, with what libvirt has said of it. libvirt has a call for this alone
   * where it is told of the checkpoint once more.
   *
   * @throws LacunaError ERR_LIBVIRT
   */
  async validate(checkpoint: string): Promise<void> {
    const folder = await mkdtemp(join(tmpdir(), 'lacuna-'));
    try {
      const file = join(folder, 'checkpoint.xml');
      await writeFile(file, checkpoint);
      await this.redefine(file);
    } finally {
      await rm(folder, { recursive: true });
    }
  }

  async #isBroken(checkpoint: string): Promise<boolean> {
    const text = await this.checkpointXml(checkpoint);
    return await this.validate(text).then(
      () => false,
      () => true,
    );
  }

  async #list(...args: [string, ...string[]]): Promise<string[]> {
    const [command, ...options] = args;
    return lines(await this.#virsh.run(command, options));
  }

  #run(command: string, args: readonly string[] = [], signal?: AbortSignal): Promise<string> {
    return this.#virsh.run(command, [...this.#which, ...args], { signal });
  }
}

function lines(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}
