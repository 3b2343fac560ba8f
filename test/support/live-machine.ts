import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { type BlockDevice, createQcow2, createRawFile, openDevice } from 'lacuna';
import { type Fetch, Machine, type MachineOptions } from 'lacuna/qemu';
import { Monitor } from 'lacuna/qmp';
import type { Random } from 'lacuna/testing';
import { type Peer, type Peers, run } from './peers.js';
import { QmpProxy } from './qmp-proxy.js';

export const DISK_BYTES = 2 ** 20;
export const GRANULE = 65536;

export interface LiveOptions {
  /** Default 1. */
  readonly disks?: number;
  /** Bytes of each disk. */
  readonly size?: number;
  readonly format?: 'qcow2' | 'raw';
  /** The images keep their data in a raw file beside them, and only bitmaps and the like in themselves. */
  readonly hasDataFile?: boolean;
}

/**
 * qemu-storage-daemon as a machine: its disks are nodes, and the test is the guest, which writes through exports. Its disks
 * outlive it: `start` begins it again.
 */
export class LiveMachine {
  /** Where sessions keep what they need. */
  readonly folder: string;
  readonly names: readonly string[];
  readonly guests: Guest[] = [];
  daemon!: Peer;
  proxy!: QmpProxy;
  /** Another monitor, for what somebody else does. */
  other!: Monitor;
  readonly #peers: Peers;
  readonly #folder: string;
  readonly #format: string;
  readonly #size: number;
  #starts = 0;
  #snapshots = 0;
  /** The file and the node of a disk that has snapshots. */
  readonly #tops = new Map<string, { readonly file: string; readonly node: string }>();

  static async start(peers: Peers, options: LiveOptions = {}): Promise<LiveMachine> {
    const { disks = 1, size = DISK_BYTES, format = 'qcow2', hasDataFile = false } = options;
    const folder = join(await peers.folder(), `m${machines++}`);
    mkdirSync(folder);
    const machine = new LiveMachine(peers, { folder, disks, size, format });
    for (const name of machine.names) {
      if (hasDataFile) await createWithDataFile(machine.file(name), size);
      else if (format === 'qcow2') await createQcow2(machine.file(name), { size });
      else await createRawFile(machine.file(name), size);
    }
    await machine.start();
    return machine;
  }

  private constructor(
    peers: Peers,
    made: { folder: string; disks: number; size: number; format: string },
  ) {
    this.#peers = peers;
    this.#folder = made.folder;
    this.#format = made.format;
    this.#size = made.size;
    this.folder = join(made.folder, 'sessions');
    mkdirSync(this.folder);
    this.names = Array.from({ length: made.disks }, (_, index) => `vd${'abc'[index]}`);
  }

  file(name: string): string {
    const top = this.#tops.get(name);
    if (top !== undefined) return top.file;
    return join(this.#folder, `${name}.${this.#format}`);
  }

  get nbd(): { type: 'unix'; path: string } {
    return { type: 'unix', path: join(this.#folder, 'nbd.sock') };
  }

  /** How a process reaches it, through the proxy. */
  get options(): MachineOptions {
    return { monitor: { path: this.proxy.path }, nbd: this.nbd, folder: this.folder };
  }

  get choices(): { node: string; name: string }[] {
    return this.names.map((name) => ({ node: this.#tops.get(name)?.node ?? name, name }));
  }

  /** Begins a new layer of a disk, as for a snapshot: what was its image is read-only from then on. */
  async snapshot(name: string): Promise<void> {
    const node = `${name}-snapshot${this.#snapshots++}`;
    const file = join(this.#folder, `${node}.qcow2`);
    await this.other.execute('blockdev-snapshot-sync', {
      'node-name': this.choices.find((choice) => choice.name === name)!.node,
      ...{ 'snapshot-file': file, 'snapshot-node-name': node, format: 'qcow2' },
    });
    this.#tops.set(name, { file, node });
  }

  /** Opens the image of a disk again, with other options, where it has no snapshots. */
  async reopen(name: string, discard: 'unmap' | 'ignore'): Promise<void> {
    if (this.#tops.has(name)) return;
    const options = [{ driver: this.#format, 'node-name': name, file: `${name}-file`, discard }];
    await this.other.execute('blockdev-reopen', { options });
  }

  async start(): Promise<void> {
    // The daemon opens the layers below by itself.
    for (const [name, { file }] of this.#tops) this.#tops.set(name, { file, node: name });
    const other = join(this.#folder, `other${this.#starts++}.sock`);
    const args = this.names.flatMap((name) => [
      ...['--blockdev', `file,filename=${this.file(name)},node-name=${name}-file,discard=unmap`],
      ...['--blockdev', `${this.#format},file=${name}-file,node-name=${name},discard=unmap`],
      ...['--export', `nbd,id=guest-${name},node-name=${name},name=${name},writable=on`],
    ]);
    this.daemon = await this.#peers.monitoredDaemon([
      ...['--nbd-server', `addr.type=unix,addr.path=${this.nbd.path}`],
      ...['--chardev', `socket,id=other,path=${other},server=on,wait=off`],
      ...['--monitor', 'chardev=other'],
      ...args,
    ]);
    this.proxy = await QmpProxy.start(this.daemon.server.path);
    this.other = await Monitor.connect({ path: other });
    for (const [index, name] of this.names.entries()) {
      const description = { driver: 'nbd' as const, server: this.nbd, export: name };
      const device = await openDevice(description, { writable: true });
      const before = this.guests[index]?.content ?? Buffer.alloc(this.#size);
      // What a disk has gained since reads as zero.
      const content = Buffer.alloc(device.size);
      before.copy(content);
      this.guests[index] = new Guest(device, content);
    }
  }

  /** Ends QEMU, well or badly; everything that the guest has written reaches the disk before. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    for (const guest of this.guests) await guest.flush();
    await this.other.close();
    await this.proxy.stop();
    await this.daemon.stop(signal);
    for (const guest of this.guests) await guest.close();
  }

  connect(options: Partial<MachineOptions> = {}): Promise<Machine> {
    return Machine.connect({ ...this.options, ...options });
  }

  /** Everything in QEMU and on the host that a backup could have left, bitmaps by their nodes. */
  async leftovers(): Promise<string[]> {
    const [exports, jobs, nodes] = await Promise.all([
      this.other.execute('query-block-exports'),
      this.other.execute('query-jobs'),
      this.other.execute('query-named-block-nodes'),
    ]);
    const bitmaps = nodes.flatMap((node) =>
      (node['dirty-bitmaps'] ?? []).map(({ name }) => `bitmap ${node['node-name']}/${name}`),
    );
    return [
      ...exports.filter(({ id }) => !id.startsWith('guest-')).map(({ id }) => `export ${id}`),
      ...jobs.map(({ id, status }) => `job ${id} ${status}`),
      ...nodes
        .map((node) => node['node-name'] ?? '')
        .filter((name) => !this.names.some((disk) => name === disk || name === `${disk}-file`))
        .map((name) => `node ${name}`),
      ...bitmaps.sort(),
      ...readdirSync(this.folder).map((name) => `file ${name}`),
    ];
  }

  /** What must be there when the backup of this generation was the last one. */
  bitmapsOf(generation: string | undefined): string[] {
    if (generation === undefined) return [];
    return this.names.map((name) => `bitmap ${name}/lacuna-${generation}@${name}`);
  }
}

async function createWithDataFile(path: string, size: number): Promise<void> {
  const options = ['-o', `data_file=${path}.data,data_file_raw=on`];
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...options, path, String(size)]);
}

/** What the daemon of these tests can: that of Debian 12 only gives its data to who reads it. */
export function fetchModes(): Fetch[] {
  return process.env.LACUNA_STORAGE_DAEMON === undefined ? ['pull'] : ['pull', 'push'];
}

/** Those that break a view where there is no room for old data, and let the guest go on: from 10.1. */
export function breakingVersions(): string[] {
  const { LACUNA_STORAGE_DAEMON: program } = process.env;
  if (program === undefined) return [];
  const text = execFileSync(program, ['--version'], { encoding: 'utf8' });
  const [, major, minor] = /version (\d+)\.(\d+)/.exec(text)!.map(Number);
  return major > 10 || (major === 10 && minor > 0) ? [`${major}.${minor}`] : [];
}

let machines = 0;

/** Writes to a disk as a guest does, and knows what it then holds. */
export class Guest {
  readonly content: Buffer;
  /** Offsets of the granules that it has written since somebody cleared this. */
  readonly written = new Set<number>();
  /** All that it has written, to the byte, since somebody emptied this. What was discarded may have been left alone. */
  readonly ranges: { offset: number; length: number; isDiscard: boolean }[] = [];
  readonly #device: BlockDevice;

  constructor(device: BlockDevice, content: Buffer) {
    this.#device = device;
    this.content = content;
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    await this.#device.write(offset, bytes);
    this.content.set(bytes, offset);
    this.#note(offset, bytes.length);
  }

  async zero(offset: number, length: number): Promise<void> {
    await this.#device.zero(offset, length);
    this.content.fill(0, offset, offset + length);
    this.#note(offset, length);
  }

  /** What is discarded may read as anything from then on, but always as the same. */
  async discard(offset: number, length: number): Promise<void> {
    await this.#device.discard(offset, length);
    await this.#device.read(offset, this.content.subarray(offset, offset + length));
    this.#note(offset, length, true);
  }

  /** A few writes, zeroes and discards: whole granules, parts of them, and across their borders. */
  async scribble(random: Random, count = 3): Promise<void> {
    for (let n = 0; n < count; n++) {
      const granule = random.below(Math.ceil(this.content.length / GRANULE)) * GRANULE;
      const [shift, length] = random.pick([
        [0, GRANULE],
        [0, 3 * GRANULE],
        [0, 4096],
        [512, 512],
        [1 + random.below(5000), 1 + random.below(9000)],
        [GRANULE - 1, 2],
        [GRANULE - 4096, 8192],
      ] as const);
      // A disk may end within a granule.
      const offset = Math.min(granule + shift, this.content.length - 1);
      const bytes = Math.min(length, this.content.length - offset);
      const kind = random.below(4);
      if (kind < 2) await this.write(offset, random.bytes(bytes));
      else if (kind === 2) await this.zero(offset, bytes);
      else await this.discard(offset, bytes);
    }
  }

  #note(offset: number, length: number, isDiscard = false): void {
    this.ranges.push({ offset, length, isDiscard });
    const first = offset - (offset % GRANULE);
    for (let at = first; at < offset + length; at += GRANULE) this.written.add(at);
  }

  async flush(): Promise<void> {
    await this.#device.flush();
  }

  async close(): Promise<void> {
    await this.#device.close().catch(() => {});
  }
}

/** What backups hold of the disks of a machine: what was restored last, of each. */
export class Restored {
  readonly disks: Map<string, Buffer>;
  generation: string | undefined;
  /** Bytes that the last backup has read as data. */
  movedBytes = 0;

  constructor(names: readonly string[], size = DISK_BYTES) {
    this.disks = new Map(names.map((name) => [name, Buffer.alloc(size, 0xee)]));
  }
}

/** Stands between a client and a Unix socket, and can cut what goes through it. */
export class Relay {
  readonly path: string;
  connections = 0;
  readonly #sockets = new Set<Socket>();
  readonly #server = createServer((client) => this.#serve(client));
  readonly #to: string;

  static async start(to: string): Promise<Relay> {
    const relay = new Relay(to);
    relay.#server.listen(relay.path);
    await once(relay.#server, 'listening');
    return relay;
  }

  private constructor(to: string) {
    this.#to = to;
    this.path = `${to}.relay`;
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  stop(): void {
    this.cut();
    this.#server.close();
  }

  #serve(client: Socket): void {
    this.connections++;
    const server = connect({ path: this.#to });
    for (const [from, to] of [
      [client, server],
      [server, client],
    ]) {
      this.#sockets.add(from);
      from.on('error', () => {});
      from.on('close', () => {
        this.#sockets.delete(from);
        to.destroy();
      });
      from.pipe(to);
    }
  }
}
