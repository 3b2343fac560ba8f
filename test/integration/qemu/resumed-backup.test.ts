/**
 * `lacuna backup --qmp` is killed while it fetches, and run again by another process: where its view still stands, that goes on
 * with what was not durable; where it does not, nothing is left of it. Either way the restore point is of its point in time.
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { digest } from 'lacuna';
import { BitmapFile } from 'lacuna/bitmap';
import { type BackupReport, Repository } from 'lacuna/repository';
import { Random } from 'lacuna/testing';
import { expect, onTestFinished, test } from 'vitest';
import { GRANULE, LiveMachine } from '../../support/live-machine.js';
import { firstSeed } from '../../support/long-run.js';
import { run, usePeers } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';

const MIB = 2 ** 20;
const SIZE = 12 * MIB;
/** Of each disk, between two backups. */
const DIRTY = 8 * MIB;

const peers = usePeers('suite');

/** Stands between the backup and the NBD server, and lets only so many bytes of it through. */
class Valve {
  readonly path: string;
  mostBytes = Number.POSITIVE_INFINITY;
  bytes = 0;
  readonly #sockets = new Set<Socket>();
  readonly #server = createServer((client) => this.#serve(client));

  constructor(readonly to: string) {
    this.path = `${to}.valve`;
  }

  async open(): Promise<void> {
    this.#server.listen(this.path);
    await once(this.#server, 'listening');
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }

  #serve(client: Socket): void {
    const server = connect({ path: this.to });
    for (const [socket, other] of [
      [client, server],
      [server, client],
    ]) {
      this.#sockets.add(socket);
      socket.on('error', () => {}).on('close', () => other.destroy());
    }
    client.pipe(server);
    server.on('data', (bytes) => {
      this.bytes += bytes.length;
      client.write(bytes);
      if (this.bytes >= this.mostBytes) server.pause();
    });
  }
}

/** A machine with two disks, of which there is a restore point, and writes since then. */
class Scene {
  readonly #random = new Random(firstSeed());
  /** The content of the disks at the last transaction. */
  content: Buffer[] = [];
  readonly live: LiveMachine;
  readonly repository: string;
  readonly valve: Valve;

  static async begin(): Promise<Scene> {
    const scene = new Scene(await LiveMachine.start(peers, { disks: 2, size: SIZE }));
    await scene.valve.open();
    onTestFinished(() => scene.valve.close());
    await scene.write(DIRTY);
    expect((await scene.backUp()).point.number).toBe(1);
    await scene.write(DIRTY);
    return scene;
  }

  private constructor(live: LiveMachine) {
    this.live = live;
    this.repository = join(live.folder, '..', 'repository');
    this.valve = new Valve(live.nbd.path);
  }

  /** Data, some of it zero, from the start of each disk on; then a little everywhere. */
  async write(bytes: number): Promise<void> {
    for (const guest of this.live.guests) {
      await guest.write(0, this.#random.bytes(bytes - MIB));
      await guest.zero(bytes - MIB, MIB);
      await guest.scribble(this.#random, 4);
      guest.written.clear();
    }
  }

  async scribble(): Promise<void> {
    for (const guest of this.live.guests) await guest.scribble(this.#random, 12);
  }

  #args(more: readonly string[]): string[] {
    const disks = this.live.names.flatMap((name) => ['--disk', `node:${name}`]);
    return [
      ...['backup', '--qmp', this.live.proxy.path, '--machine', 'web', ...disks],
      ...['--nbd', `nbd+unix:///?socket=${this.valve.path}`, '--scratch', this.live.folder],
      ...[...more, '--json', this.repository],
    ];
  }

  #noteTransactions(): void {
    this.live.proxy.reset({
      before: ({ name }) => {
        if (name !== 'transaction') return;
        this.content = this.live.guests.map(({ content }) => Buffer.from(content));
      },
    });
  }

  async backUp(...more: string[]): Promise<BackupReport> {
    this.#noteTransactions();
    this.valve.mostBytes = Number.POSITIVE_INFINITY;
    this.valve.bytes = 0;
    const { code, stdout, stderr } = await runCli(this.#args(more));
    expect(code, stderr).toBe(0);
    return JSON.parse(stdout);
  }

  /** A backup that comes so far and no further, and is killed once some of that is durable. */
  async killed(mostBytes: number, disk: string): Promise<void> {
    this.#noteTransactions();
    this.valve.mostBytes = mostBytes;
    this.valve.bytes = 0;
    let child: ChildProcess | undefined;
    const ended = runCli(this.#args([]), {
      started: (one) => {
        child = one;
      },
    });
    await expect.poll(() => this.remaining(disk)).toBeLessThan(DIRTY - 2 * MIB);
    child!.kill('SIGKILL');
    expect(await ended).toMatchObject({ code: null });
  }

  /** Bytes that an interrupted backup says are left of a disk; all where it says nothing. */
  remaining(disk: string): number {
    const [session] = readdirSync(this.live.folder);
    const path = join(this.live.folder, session ?? '', 'notes', `${disk}.copy`);
    try {
      const file = BitmapFile.open(path, { readOnly: true });
      try {
        const data = file.load('data');
        return data.dirtyBytes;
      } finally {
        file.close();
      }
    } catch {
      return Number.POSITIVE_INFINITY;
    }
  }

  /** Restores the newest point with QEMU's own tool, and compares it with its point in time. */
  async expectRight({ point }: BackupReport, isElsewhere = false): Promise<void> {
    for (const [index, { name, file }] of point.disks.entries()) {
      const image = join(this.repository, 'machines/web/disks', name, file.name);
      const raw = join(this.live.folder, '..', `${name}.restored.raw`);
      await run('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', image, raw]);
      expect(readFileSync(raw).equals(this.content[index]), name).toBe(true);
      expect((await digest(raw)).digest, name).toBe(point.disks[index].digest);
    }
    const { problems } = await Repository.open(this.repository).verify({ machine: 'web' });
    expect(problems).toEqual([]);
    const left = (await this.live.leftovers()).sort();
    // Behind a monitor of another path, a folder could be another machine's.
    expect(isElsewhere ? left.filter((one) => !one.startsWith('file ')) : left).toEqual(
      point.disks.map(({ name, bitmap }) => `bitmap ${name}/${bitmap}`),
    );
  }

  /** The next increment has what was written since the last point in time, and no more than the guest has touched. */
  async expectNext(): Promise<void> {
    const touched = this.live.guests.map(({ written }) => written.size * GRANULE);
    const next = await this.backUp();
    for (const [index, { mode, movedBytes, zeroedBytes }] of next.disks.entries()) {
      expect(mode).toBe('given');
      expect(movedBytes + zeroedBytes).toBeLessThanOrEqual(touched[index]);
    }
    expect(next.warnings).toEqual([]);
    await this.expectRight(next);
  }
}

test('a backup that was killed while it fetched goes on in another process, with what was not durable', async () => {
  const scene = await Scene.begin();
  await scene.killed(5 * MIB, 'vda');
  const left = scene.remaining('vda');
  // The view shows what was there before.
  await scene.scribble();
  const report = await scene.backUp();
  expect(report.warnings).toEqual([
    expect.stringMatching(/^the disks are as they were at .*: a backup was interrupted then/),
  ]);
  const [first, second] = report.disks;
  expect(first.mode).toBe('given');
  expect(first.readBytes).toBe(left);
  expect(first.resumedBytes).toBe(first.movedBytes - left);
  expect(second.resumedBytes).toBe(0);
  expect(scene.valve.bytes).toBeLessThan(left + second.readBytes + MIB / 2);
  expect(report.point.number).toBe(2);
  await scene.expectRight(report);
  await scene.expectNext();
});

test('of a backup that was killed in its second disk, the first is not read again', async () => {
  const scene = await Scene.begin();
  await scene.killed(DIRTY + 4 * MIB, 'vdb');
  const left = scene.remaining('vdb');
  await scene.scribble();
  // Killed again, before it has come further.
  await scene.killed(MIB / 4, 'vdb');
  expect(scene.remaining('vdb')).toBe(left);
  const report = await scene.backUp();
  expect(report.disks[0]).toMatchObject({ readBytes: 0, resumedBytes: report.disks[0].movedBytes });
  expect(report.disks[1].readBytes).toBe(left);
  await scene.expectRight(report);
  await scene.expectNext();
});

/** What may happen until the next run, and what that says. */
const CHANGES: readonly { why: RegExp | undefined; change(scene: Scene): Promise<unknown> }[] = [
  {
    why: /vd[ab]: its view has ended/,
    async change({ live }) {
      const [, { id }] = await live.other.execute('query-jobs');
      await live.other.execute('job-cancel', { id });
      const isRunning = async () =>
        (await live.other.execute('query-jobs')).find((job) => job.id === id)?.status === 'running';
      await expect.poll(isRunning).toBe(false);
    },
  },
  {
    why: /vdb: its new bitmap is gone/,
    async change({ live }) {
      const nodes = await live.other.execute('query-named-block-nodes');
      const { 'dirty-bitmaps': bitmaps = [] } = nodes.find((one) => one['node-name'] === 'vdb')!;
      // The old one counts from a point.
      const { name } = bitmaps.find((one) => one.count * 2 < DIRTY)!;
      await live.other.execute('block-dirty-bitmap-remove', { node: 'vdb', name });
    },
  },
  {
    why: /vda: the guest has overwritten more than its scratch image may hold/,
    async change({ live }) {
      const nodes = await live.other.execute('query-named-block-nodes');
      const node = nodes.map((one) => one['node-name'] ?? '').find((name) => /-sf0$/.test(name));
      const args = { 'node-name': node, 'write-threshold': 0 };
      await live.other.execute('block-set-write-threshold', args);
    },
  },
  {
    why: undefined,
    async change({ live }) {
      await live.stop('SIGKILL');
      await live.start();
    },
  },
];

test('a backup whose view is not sound any more begins anew', async () => {
  const scene = await Scene.begin();
  for (const { why, change } of CHANGES) {
    await scene.killed(5 * MIB, 'vda');
    await change(scene);
    await scene.scribble();
    const report = await scene.backUp();
    expect(report.warnings).toEqual(why === undefined ? [] : [expect.stringMatching(why)]);
    expect(report.disks.map(({ resumedBytes }) => resumedBytes)).toEqual([0, 0]);
    await scene.expectRight(report, why === undefined);
    await scene.write(DIRTY);
  }
});

test('a disk whose unfinished image is gone begins anew, in the view that still stands', async () => {
  const scene = await Scene.begin();
  await scene.killed(5 * MIB, 'vda');
  const repository = Repository.open(scene.repository);
  await repository.prune({ machine: 'web', keep: { last: 1 } });
  await scene.scribble();
  const report = await scene.backUp();
  expect(report.warnings).toEqual([expect.stringMatching(/^the disks are as they were at /)]);
  expect(report.disks.map(({ resumedBytes }) => resumedBytes)).toEqual([0, 0]);
  await scene.expectRight(report);
  await scene.expectNext();
});
