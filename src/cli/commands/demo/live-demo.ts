/** `lacuna demo --live`: backups of a running machine, on a QEMU that is there for the demo alone. */
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type BlockDevice, createQcow2, openDevice } from '../../../block/index.js';
import type { BackupReport, Repository } from '../../../repository/index.js';
import type { Shell } from '../../shell/index.js';
import { formatBytes, formatDuration } from '../../text/index.js';
import { compareWithBar, showRepositoryJob } from '../../view/index.js';
import { Guest } from './demo-guest.js';
import { Story } from './story.js';
import { startQemu, type ThrowawayQemu } from './throwaway-qemu.js';

const DISK = 'vda';
const MACHINE = 'web';
const GUEST = 'guest';
const COMMAND = 'lacuna backup --qmp /run/web.qmp /backup';
const BLOCK = 4096;
/** Places that the machine writes over and over while it is backed up. */
const BUSY_PLACES = 512;
const MOST_ZEROES = 4 * 2 ** 30;

/** The story, a step at a time. Every figure that it prints was measured in this run. */
export class LiveDemo extends Story {
  readonly #folder: string;
  readonly #size: number;
  readonly #dataBytes: number;

  constructor(folder: string, disk: { size: number; dataBytes: number }, shell: Shell) {
    super(shell);
    this.#folder = folder;
    this.#size = disk.size;
    this.#dataBytes = disk.dataBytes;
  }

  get #server(): { type: 'unix'; path: string } {
    return { type: 'unix', path: join(this.#folder, 'nbd') };
  }

  get #sessions(): string {
    return join(this.#folder, 'sessions');
  }

  async run(): Promise<void> {
    const { signal } = this.shell;
    const qemu = await startQemu(this.#folder, signal);
    try {
      const disk = await this.#startGuest(qemu);
      try {
        await this.#tell(qemu, disk);
      } finally {
        await disk.close();
      }
    } finally {
      await qemu.end();
    }
    await this.say(
      '',
      'QEMU has ended, and nothing is left. For one of yours: docs/live-backup.md.',
    );
  }

  async #tell(qemu: ThrowawayQemu, disk: BlockDevice): Promise<void> {
    const guest = new Guest(disk, this.shell.signal);
    await this.title(`${qemu.name} has a disk of ${formatBytes(this.#size)}, and writes`);
    const { bytes, places } = await guest.scatter(this.#dataBytes, 24);
    await this.say(`${formatBytes(bytes)} in ${places} places are on it.`);
    mkdirSync(this.#sessions);
    const { Repository } = await import('../../../repository/index.js');
    const repository = Repository.open(join(this.#folder, 'backup'), { create: true });
    await this.#full(qemu, repository, guest);
    await this.#change(guest);
    await this.#increment(qemu, repository);
    await this.#restore(repository, disk);
    await this.#expectNothingLeft(qemu);
  }

  /** The guest is this process, which writes through an export of QEMU's. */
  async #startGuest(qemu: ThrowawayQemu): Promise<BlockDevice> {
    const filename = join(this.#folder, 'disk.qcow2');
    await createQcow2(filename, { size: this.#size });
    const { type, path } = this.#server;
    await qemu.through(async (monitor) => {
      await monitor.execute('blockdev-add', {
        ...{ driver: 'qcow2', 'node-name': DISK, discard: 'unmap' },
        file: { driver: 'file', filename, discard: 'unmap' },
      });
      await monitor.execute('nbd-server-start', { addr: { type, data: { path } } });
      await monitor.execute('block-export-add', {
        ...{ type: 'nbd', id: GUEST, 'node-name': DISK, name: GUEST, writable: true },
      });
    });
    return await openDevice(
      { driver: 'nbd', server: this.#server, export: GUEST },
      { writable: true, signal: this.shell.signal },
    );
  }

  async #full(qemu: ThrowawayQemu, repository: Repository, guest: Guest): Promise<void> {
    await this.title(`Back it up while it writes: ${COMMAND}`);
    const writing = new AbortController();
    const places = Array.from({ length: BUSY_PLACES }, (_, i) => {
      return Math.floor((i * this.#size) / BUSY_PLACES / BLOCK) * BLOCK;
    });
    let writes = 0;
    const busy = (async () => {
      while (!writing.signal.aborted) {
        await guest.overwrite([places[writes++ % BUSY_PLACES]], BLOCK);
      }
    })();
    // What fails is thrown below; until then nobody listens.
    busy.catch(() => {});
    let report: BackupReport;
    try {
      report = await this.#backUp(qemu, repository);
    } finally {
      writing.abort();
    }
    await busy;
    await this.say(
      `${formatBytes(report.disks[0].movedBytes)} stored in ${formatDuration(report.durationMs)}: the disk as it was at one moment.`,
      `Meanwhile the machine wrote ${writes} times; nothing that came later is in it.`,
    );
  }

  async #change(guest: Guest): Promise<void> {
    await this.title('It writes on, and zeroes much of its disk in one go');
    const fresh = await guest.scatter(this.#dataBytes / 32, 4);
    const zeroedBytes = Math.min(MOST_ZEROES, Math.floor(this.#size / 16 / BLOCK) * BLOCK);
    await guest.zero(0, zeroedBytes);
    await this.say(
      `${formatBytes(fresh.bytes)} in ${fresh.places} places, and ${formatBytes(zeroedBytes)} of zeroes.`,
    );
  }

  async #increment(qemu: ThrowawayQemu, repository: Repository): Promise<void> {
    await this.title('The same command again takes what has changed, and no more');
    const { disks, durationMs } = await this.#backUp(qemu, repository);
    const [{ movedBytes, zeroedBytes }] = disks;
    await this.say(
      `${formatBytes(movedBytes)} stored and ${formatBytes(zeroedBytes)} zero, in ${formatDuration(durationMs)}.`,
    );
  }

  async #restore(repository: Repository, disk: BlockDevice): Promise<void> {
    await this.title('Restore it, and compare it with the disk of the machine');
    const target = join(this.#folder, 'restored.raw');
    const { signal } = this.shell;
    const job = repository.restore({ point: 'latest', disks: [{ name: DISK, target }] });
    await showRepositoryJob(job, this.shell);
    const { equal, offset, comparedBytes } = await compareWithBar(
      { a: disk, b: target, signal },
      this.shell,
    );
    if (!equal) throw new Error(`it differs at byte ${offset}; please report this`);
    await this.say(
      `Equal, byte for byte: ${formatBytes(comparedBytes)} of each were read, the rest is zero.`,
      'What was written during the first backup was in the second one, not lost.',
    );
  }

  async #backUp({ socket }: ThrowawayQemu, repository: Repository): Promise<BackupReport> {
    const { backupMachine, Machine } = await import('../../../qemu/index.js');
    const { signal } = this.shell;
    const monitor = { path: socket };
    await using machine = await Machine.connect({
      ...{ monitor, nbd: this.#server, folder: this.#sessions, signal },
    });
    const job = backupMachine(repository, machine, {
      machine: MACHINE,
      disks: [{ node: DISK, name: DISK }],
    });
    return await showRepositoryJob(job, this.shell);
  }

  async #expectNothingLeft(qemu: ThrowawayQemu): Promise<void> {
    const left = await qemu.through(async (monitor) => [
      ...(await monitor.execute('query-jobs')).map(({ id }) => id),
      ...(await monitor.execute('query-block-exports')).flatMap(({ id }) =>
        id === GUEST ? [] : [id],
      ),
      ...readdirSync(this.#sessions),
    ]);
    if (left.length > 0) throw new Error(`${left.join(', ')} is left; please report this`);
    await this.say('QEMU has kept one bitmap, for the next increment, and nothing else.');
  }
}
