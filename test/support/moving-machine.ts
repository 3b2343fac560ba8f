import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { createQcow2, openDevice } from 'lacuna';
import { Machine, type MachineOptions, type MigrateOptions } from 'lacuna/qemu';
import { Monitor } from 'lacuna/qmp';
import type { Random } from 'lacuna/testing';
import type { Peer, Peers } from './peers.js';
import { QmpProxy } from './qmp-proxy.js';

export const DISK_BYTES = 2 ** 20;
const GRANULE = 65536;

/** A QEMU with the disks of a machine, and a monitor for the test alone. */
export interface Host {
  readonly qemu: Peer;
  readonly proxy: QmpProxy;
  readonly other: Monitor;
  /** Its images, by the names of the disks. */
  readonly images: Readonly<Record<string, string>>;
}

/**
 * A machine without a system in it, whose processor runs, and whose disks a test writes as a guest would. It has been backed
 * up once; the backup is a file for each disk, and bitmaps count from it.
 */
export class MovingMachine {
  readonly folder: string;
  readonly names: readonly string[];
  /** What each disk must hold. */
  readonly content: Record<string, Buffer> = {};
  /** Granules that were written since the backup, by disk. */
  readonly dirty: Record<string, Set<number>> = {};
  /** That of the backup. */
  generation = '';
  /** Where it runs. */
  source!: Host;
  /** Where it is going to run. */
  destination!: Host;
  readonly #peers: Peers;
  readonly #folder: string;
  #images = 0;
  #hosts = 0;

  static async start(peers: Peers, disks = 1): Promise<MovingMachine> {
    const folder = join(await peers.folder(), `mv${machines++}`);
    mkdirSync(join(folder, 's'), { recursive: true });
    const machine = new MovingMachine(peers, folder, disks);
    await machine.#startSource();
    await machine.#backUp();
    return machine;
  }

  private constructor(peers: Peers, folder: string, disks: number) {
    this.#peers = peers;
    this.#folder = folder;
    this.folder = join(folder, 's');
    this.names = Array.from({ length: disks }, (_, index) => `vd${'abc'[index]}`);
    for (const name of this.names) {
      this.content[name] = Buffer.alloc(DISK_BYTES);
      this.dirty[name] = new Set();
    }
  }

  base(name: string): string {
    return join(this.#folder, `${name}.base.qcow2`);
  }

  /** How a process reaches the source, through its proxy. */
  get options(): MachineOptions {
    return { monitor: { path: this.source.proxy.path }, folder: this.folder };
  }

  /** How a process moves it. */
  get move(): MigrateOptions {
    return {
      destination: { path: this.destination.proxy.path },
      bitmap: this.generation,
      targets: this.destination.images,
    };
  }

  connect(): Promise<Machine> {
    return Machine.connect(this.options);
  }

  async #startSource(): Promise<void> {
    const images: Record<string, string> = {};
    for (const name of this.names) {
      images[name] = join(this.#folder, `${name}.first.qcow2`);
      await createQcow2(images[name], { size: DISK_BYTES });
    }
    this.source = await this.#start(images);
    for (const name of this.names) await this.write(name, 0, 3 * GRANULE + 5, 17);
    await this.source.other.execute('cont');
  }

  async #backUp(): Promise<void> {
    await using machine = await this.connect();
    const session = await machine.backup({});
    for (const disk of session.disks) await disk.copyTo(this.base(disk.name));
    const { point } = await session.finish(() => {});
    this.generation = point.generation!;
    for (const name of this.names) this.dirty[name].clear();
  }

  /** A QEMU that waits for the machine, with new overlays over the backup, or with the images that are given. */
  async await(images?: Host['images'], more: readonly string[] = []): Promise<void> {
    const made: Record<string, string> = {};
    for (const name of this.names) {
      made[name] = join(this.#folder, `${name}.${this.#images}.qcow2`);
      const backing = { filename: this.base(name), format: 'qcow2' };
      if (images === undefined) await createQcow2(made[name], { size: DISK_BYTES, backing });
    }
    this.#images++;
    this.destination = await this.#start(images ?? made, ['-incoming', 'defer', ...more]);
  }

  async #start(images: Host['images'], more: readonly string[] = []): Promise<Host> {
    const other = join(this.#folder, `o${this.#hosts++}`);
    const disks = this.names.flatMap((name) => [
      '-blockdev',
      `qcow2,node-name=${name},file.driver=file,file.filename=${images[name]},discard=unmap,file.discard=unmap`,
      ...['-device', `virtio-blk-pci,id=${name},drive=${name}`],
    ]);
    const qemu = await this.#peers.machine([
      ...['-m', '16', ...disks, ...more],
      ...['-qmp', `unix:${other},server=on,wait=off`],
    ]);
    // Its monitors are made one after another: one that answers has all others beside it.
    const first = await Monitor.connect({ path: qemu.server.path });
    await first.execute('query-status');
    await first.close();
    const proxy = await QmpProxy.start(qemu.server.path);
    return { qemu, proxy, other: await Monitor.connect({ path: other }), images };
  }

  /** The destination is the source from now on. */
  async moved(): Promise<void> {
    await this.source.other.close();
    await this.source.proxy.stop();
    this.source = this.destination;
  }

  /** Ends the destination that nobody has moved to. */
  async endDestination(): Promise<void> {
    await this.destination.other.close();
    await this.destination.proxy.stop();
    await this.destination.qemu.stop('SIGKILL');
  }

  async isRunning(host: Host): Promise<boolean> {
    return (await host.other.execute('query-status')).running;
  }

  /** Writes as the guest's device would; 0 is written as zeroes without data. */
  async write(name: string, offset: number, length: number, byte: number): Promise<void> {
    await this.#io(name, `write ${byte === 0 ? '-z' : `-P ${byte}`} ${offset} ${length}`);
    this.content[name].fill(byte, offset, offset + length);
    const first = offset - (offset % GRANULE);
    for (let at = first; at < offset + length; at += GRANULE) this.dirty[name].add(at);
  }

  async #io(name: string, command: string): Promise<void> {
    const device = `/machine/peripheral/${name}/virtio-backend`;
    await this.source.other.execute('human-monitor-command', {
      'command-line': `qemu-io -d ${device} "${command}"`,
    });
  }

  /** A few writes, on each disk, of whole granules and of parts. */
  async scribble(random: Random, count = 2): Promise<void> {
    for (const name of this.names) {
      for (let n = 0; n < count; n++) {
        const granule = random.below(DISK_BYTES / GRANULE - 2) * GRANULE;
        const kind = random.below(5);
        if (kind === 0) await this.write(name, granule, GRANULE, 0);
        else if (kind === 1) {
          // What was discarded may read as anything until it is written again.
          await this.#io(name, `discard ${granule} ${GRANULE}`);
          await this.write(name, granule, 2 * GRANULE, 0);
        } else if (kind === 2) await this.write(name, granule, 2 * GRANULE, 1 + random.below(255));
        else {
          const offset = granule + 512 * random.below(100);
          await this.write(name, offset, 512 * (1 + random.below(90)), 1 + random.below(255));
        }
      }
    }
  }

  /** Of all disks, in whole granules. */
  get dirtyBytes(): number {
    return this.names.reduce((sum, name) => sum + this.dirty[name].size * GRANULE, 0);
  }

  /** What a disk holds, read from outside while the machine runs. */
  async read(host: Host, name: string): Promise<Buffer> {
    const path = join(this.#folder, `r${this.#hosts++}`);
    await host.other.execute('nbd-server-start', { addr: { type: 'unix', data: { path } } });
    const id = `read-${name}`;
    await host.other.execute('block-export-add', {
      ...{ type: 'nbd', id, 'node-name': name, name: 'disk' },
    });
    const bytes = Buffer.alloc(DISK_BYTES);
    const server = { type: 'unix' as const, path };
    const device = await openDevice({ driver: 'nbd', server, export: 'disk' });
    await device.read(0, bytes);
    await device.close();
    await host.other.execute('block-export-del', { id, mode: 'hard' });
    await host.other.execute('nbd-server-stop');
    return bytes;
  }

  /** Everything in a QEMU and in the folder that is not there before a migration. */
  async leftovers(host: Host = this.source): Promise<string[]> {
    const [exports, jobs, nodes] = await Promise.all([
      host.other.execute('query-block-exports'),
      host.other.execute('query-jobs'),
      host.other.execute('query-named-block-nodes'),
    ]);
    const bitmaps = nodes.flatMap((node) =>
      (node['dirty-bitmaps'] ?? []).map(({ name }) => `bitmap ${node['node-name']}/${name}`),
    );
    const own = this.names.map((name) => `bitmap ${name}/lacuna-${this.generation}@${name}`);
    return [
      ...exports.map(({ id }) => `export ${id}`),
      ...jobs.map(({ id }) => `job ${id}`),
      ...nodes.flatMap((node) =>
        node['node-name']?.startsWith('lacuna') ? [`node ${node['node-name']}`] : [],
      ),
      ...bitmaps.filter((bitmap) => !own.includes(bitmap)),
      ...own.filter((bitmap) => !bitmaps.includes(bitmap)).map((bitmap) => `no ${bitmap}`),
      ...(existsSync(this.folder) ? readdirSync(this.folder) : []).map((name) => `file ${name}`),
    ];
  }
}

let machines = 0;
