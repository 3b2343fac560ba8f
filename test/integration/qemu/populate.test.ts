/**
 * Bitmaps of a running machine are built of what is allocated, while the guest writes between every two commands. Everything that
 * is allocated at the moment of the merge, and everything that was written meanwhile, must be dirty, and nothing else beyond
 * the rounding to granules and clusters.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createQcow2, openDevice } from 'lacuna';
import { Machine, type MachinePopulateOptions } from 'lacuna/qemu';
import { Random } from 'lacuna/testing';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { LiveMachine, type LiveOptions } from '../../support/live-machine.js';
import { firstSeed } from '../../support/long-run.js';
import { run, usePeers } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';

const peers = usePeers('suite');
const CLUSTER = 65536;
/** Finer than this nothing is written: what is shorter is read and written again as a whole. */
const SECTOR = 512;

let live: LiveMachine;
let machine: Machine;
let random: Random;
let before: string[];

async function setUp(options: LiveOptions = {}): Promise<void> {
  live = await LiveMachine.start(peers, options);
  machine = await live.connect();
  random = new Random(firstSeed());
}

async function tearDown(): Promise<void> {
  await machine.close();
  await live.stop();
}

/** Puts a layer over the disk, which is read-only from then on, as a snapshot does. */
async function snapshot(size?: number): Promise<void> {
  const file = live.file('over');
  const bytes = size ?? live.guests[0].content.length;
  await createQcow2(file, { size: bytes });
  await live.other.execute('blockdev-add', {
    ...{ driver: 'qcow2', 'node-name': 'over', discard: 'unmap', backing: null },
    file: { driver: 'file', filename: file, 'node-name': 'over-file', discard: 'unmap' },
  });
  await live.other.execute('blockdev-snapshot', { node: 'vda', overlay: 'over' });
}

/** Sectors of a disk, each marked or not. */
type Marks = Uint8Array;

/** What QEMU says of a node in a metadata context, sector by sector, where it is `wanted`. */
async function marksOf(
  node: string,
  context: string,
  wanted: (flags: number) => boolean,
): Promise<Marks> {
  const [kind, name] = context.split('qemu:dirty-bitmap:');
  const bitmaps = kind === '' ? [name] : [];
  await live.other.execute('block-export-add', {
    ...{ type: 'nbd', id: 'look', 'node-name': node, name: 'look', 'allocation-depth': true },
    // A bitmap that records goes only with an export that can be written.
    ...(bitmaps.length > 0 && { bitmaps, writable: true }),
  });
  const uri = `nbd+unix:///look?socket=${live.nbd.path}`;
  const map = JSON.parse(await run('nbdinfo', ['--json', `--map=${context}`, uri])) as {
    offset: number;
    length: number;
    type: number;
  }[];
  await live.other.execute('block-export-del', { id: 'look', mode: 'hard' });
  const exported = async () =>
    (await live.other.execute('query-block-exports')).some(({ id }) => id === 'look');
  await expect.poll(exported).toBe(false);
  const end = map.at(-1)!.offset + map.at(-1)!.length;
  const marks = new Uint8Array(Math.ceil(end / SECTOR));
  for (const { offset, length, type } of map) if (wanted(type)) mark(marks, { offset, length });
  return marks;
}

const allocatedIn = (node: string) =>
  marksOf(node, 'qemu:allocation-depth', (depth) => depth === 1);
/** Bit 1: reads as zero. */
const dataIn = (node: string) => marksOf(node, 'base:allocation', (flags) => (flags & 2) === 0);
const dirtyIn = (node: string, bitmap: string) =>
  marksOf(node, `qemu:dirty-bitmap:${bitmap}`, (flags) => (flags & 1) !== 0);

function mark(marks: Marks, { offset, length }: { offset: number; length: number }): void {
  marks.fill(1, Math.floor(offset / SECTOR), Math.ceil((offset + length) / SECTOR));
}

function union(...all: Marks[]): Marks {
  return all[0].map((_, i) => (all.some((one) => one[i] === 1) ? 1 : 0));
}

function rounded(marks: Marks, granularity: number): Marks {
  const out = new Uint8Array(marks.length);
  const step = granularity / SECTOR;
  for (let i = 0; i < marks.length; i++) {
    const first = i - (i % step);
    if (marks[i] === 1) out.fill(1, first, first + step);
  }
  return out;
}

/** What the guest has written, and with `discarded` also what it may have. */
function written(discarded: boolean): Marks {
  const [{ ranges, content }] = live.guests;
  const marks = new Uint8Array(Math.ceil(content.length / SECTOR));
  for (const range of ranges) if (discarded || !range.isDiscard) mark(marks, range);
  return marks;
}

/** Every sector of `inner` must be in `outer`. */
function expectInside(inner: Marks, outer: Marks, what: string): void {
  expect(inner.length, what).toBe(outer.length);
  const at = inner.findIndex((one, i) => one === 1 && outer[i] !== 1);
  expect(at === -1 ? 'nothing' : `sector ${at}`, what).toBe('nothing');
}

interface Populating {
  readonly node: string;
  readonly options: MachinePopulateOptions;
  readonly look: (node: string) => Promise<Marks>;
  /** At which positions, two for each command, the guest writes. */
  readonly inject: (position: number) => boolean;
}

/** Populates new bitmaps, checks each against what QEMU and the guest know, and removes them; returns the commands. */
async function checkPopulate({ node, options, look, inject }: Populating): Promise<string[]> {
  before = await live.leftovers();
  const first = await look(node);
  live.guests[0].ranges.length = 0;
  let recorded: Marks | undefined;
  let merged: Marks | undefined;
  const scribble = async (position: number) => {
    if (inject(position)) await live.guests[0].scribble(random);
  };
  live.proxy.reset({
    before: ({ index }) => scribble(2 * index),
    after: async ({ name, index }) => {
      if (name === 'transaction' && recorded !== undefined) merged = await look(node);
      // What came before it recorded is found as allocated, or was discarded again.
      if (name === 'transaction' && recorded === undefined) {
        recorded = written(true);
        live.guests[0].ranges.length = 0;
      }
      await scribble(2 * index + 1);
    },
  });
  const report = await machine.populate(options);
  const commands = [...live.proxy.passed];
  live.proxy.reset();
  const must = union(merged!, written(false));
  const may = union(first, recorded!, must, written(true));
  expect(report.warnings).toEqual([]);
  for (const { name, granularity, isNew } of report.bitmaps) {
    const dirty = await dirtyIn(node, name);
    expectInside(must, dirty, `what must be dirty in ${name}`);
    // Status is known by clusters, and granules are rounded outward.
    expectInside(dirty, rounded(may, Math.max(granularity, CLUSTER)), `what is dirty in ${name}`);
    expect(isNew).toBe(true);
    await live.other.execute('block-dirty-bitmap-remove', { node, name });
  }
  expect(await live.leftovers()).toEqual(before);
  return commands;
}

describe('a populate of a layer over a snapshot, while the guest writes', () => {
  beforeEach(async () => {
    // Large enough that a write nearly always falls where nothing is allocated yet.
    await setUp({ size: 2 ** 26 });
    for (let n = 0; n < 3; n++) await live.guests[0].scribble(random);
    await snapshot();
    await live.guests[0].scribble(random, 2);
  });
  afterEach(tearDown);

  const top = (): MachinePopulateOptions => ({
    sources: [{ node: 'over' }],
    targets: [
      { disk: { node: 'over' }, name: 'fine', granularity: 4096, persistent: false },
      { disk: { node: 'over' }, name: 'coarse', granularity: 2 ** 18 },
    ],
    mode: 'top',
  });

  test('misses nothing, wherever between two commands a write falls', async () => {
    const populating = { node: 'over', options: top(), look: allocatedIn };
    const commands = await checkPopulate({ ...populating, inject: () => true });
    const [first, last] = [commands.indexOf('transaction'), commands.lastIndexOf('transaction')];
    expect(last).toBeGreaterThan(first + 2);
    // Between an answer and the next command QEMU does nothing, so one of two places stands for both.
    for (let index = first; index <= last + 1; index++) {
      await checkPopulate({ ...populating, inject: (at) => at === 2 * index });
    }
  });

  test('finds all that does not read as zero in any layer', async () => {
    const options: MachinePopulateOptions = { ...top(), mode: 'full' };
    const populating = { node: 'over', options, look: dataIn };
    await checkPopulate({ ...populating, inject: () => false });
    await checkPopulate({ ...populating, inject: () => true });
  });

  test('equals what qemu-img finds in the image when nobody writes', async () => {
    await machine.populate(top());
    const hash = async (name: string) => {
      const args = { node: 'over', name };
      const answer = await live.other.execute('x-debug-block-dirty-bitmap-sha256', args);
      return (answer as { sha256: string }).sha256;
    };
    const [fine, coarse] = [await hash('fine'), await hash('coarse')];
    const file = live.file('over');
    await tearDown();
    const map = JSON.parse(await run('qemu-img', ['map', '--output=json', file])) as {
      start: number;
      length: number;
      present: boolean;
    }[];
    const marks = new Uint8Array(live.guests[0].content.length / SECTOR);
    for (const { start, length, present } of map) {
      if (present) mark(marks, { offset: start, length });
    }
    expect(fine).toBe(sha256Of(marks, 4096));
    expect(coarse).toBe(sha256Of(marks, 2 ** 18));
    await setUp();
  });

  test('takes in the layers below and other bitmaps, and keeps what a bitmap marks already', async () => {
    await live.other.execute('block-dirty-bitmap-add', { node: 'over', name: 'old' });
    await live.guests[0].write(5 * CLUSTER, random.bytes(10));
    const over = { node: 'over' };
    const { bitmaps } = await machine.populate({
      sources: [{ node: 'vda' }],
      targets: [{ disk: over, name: 'all' }],
      merge: [{ disk: over, name: 'old' }],
    });
    const expected = union(await dataIn('vda'), await dirtyIn('over', 'old'));
    expect(await dirtyIn('over', 'all')).toEqual(rounded(expected, CLUSTER));
    expect(bitmaps[0]).toMatchObject({ disk: 'over', persistent: true, isNew: true });
    // One that is there keeps what it marks.
    await machine.populate({
      sources: [over],
      targets: [{ disk: over, name: 'old' }],
      mode: 'top',
    });
    expect(await dirtyIn('over', 'old')).toEqual(rounded(await allocatedIn('over'), CLUSTER));
  });
});

test('a populate takes in a backing file that is smaller than the disk above it', async () => {
  await setUp();
  await live.guests[0].write(3 * CLUSTER, random.bytes(10));
  await live.other.execute('block-dirty-bitmap-add', { node: 'vda', name: 'old' });
  await snapshot(2 ** 21);
  // The export that is there keeps the size that it had.
  await live.other.execute('block-export-add', {
    ...{ type: 'nbd', id: 'grown', 'node-name': 'over', name: 'grown', writable: true },
  });
  const description = { driver: 'nbd' as const, server: live.nbd, export: 'grown' };
  const grown = await openDevice(description, { writable: true });
  await grown.write(2 ** 21 - 10, random.bytes(10));
  await grown.close();
  const { bitmaps } = await machine.populate({
    sources: [{ node: 'over' }, { node: 'vda' }],
    targets: [{ disk: { node: 'over' }, name: 'b' }],
    mode: 'top',
  });
  expect(bitmaps[0]).toMatchObject({ size: 2 ** 21, dirtyBytes: 2 * CLUSTER });
  const base = new Uint8Array(2 ** 21 / SECTOR);
  base.set(await allocatedIn('vda'));
  const expected = union(await allocatedIn('over'), base);
  expect(await dirtyIn('over', 'b')).toEqual(rounded(expected, CLUSTER));
  const [over, base0] = [{ node: 'over' }, { node: 'vda' }];
  const targets = [{ disk: over, name: 'c' }];
  await expect(
    machine.populate({ sources: [over], targets, merge: [{ disk: base0, name: 'old' }] }),
  ).rejects.toMatchObject({ code: 'ERR_BITMAP_MISMATCH' });
  await expect(
    machine.populate({ sources: [over], targets: [{ disk: base0, name: 'c' }] }),
  ).rejects.toMatchObject({
    code: 'ERR_MACHINE_DISK',
    message: expect.stringMatching(/vda is read-only/),
  });
  await tearDown();
});

function sha256Of(marks: Marks, granularity: number): string {
  const bits = Math.ceil((marks.length * SECTOR) / granularity);
  // QEMU counts in words of 64 bits.
  const bytes = Buffer.alloc(Math.ceil(bits / 64) * 8);
  const step = granularity / SECTOR;
  for (const [i, one] of marks.entries()) {
    const bit = Math.floor(i / step);
    if (one === 1) bytes[bit >> 3] |= 1 << (bit & 7);
  }
  return createHash('sha256').update(bytes).digest('hex');
}

describe('a populate of a raw disk of an odd size', () => {
  const SIZE = 3 * 2 ** 20 + 1000;
  beforeEach(() => setUp({ format: 'raw', size: SIZE }));
  afterEach(tearDown);

  test('gets its bits into QEMU by a file, and by a server where QEMU may open none', async () => {
    const [guest] = live.guests;
    await guest.write(70_000, random.bytes(10));
    await guest.write(3 * 2 ** 20 + 900, random.bytes(50));
    const disk = { node: 'vda' };
    const servers = [
      undefined,
      { type: 'unix', path: `${live.nbd.path}.bits` } as const,
      { type: 'inet', host: '127.0.0.1', port: 0 } as const,
    ];
    for (const [i, serve] of servers.entries()) {
      const name = `b${i}`;
      const { bitmaps } = await machine.populate({
        ...{ sources: [disk], targets: [{ disk, name }], serve },
      });
      expect(bitmaps[0]).toMatchObject({ persistent: false, size: 3 * 2 ** 20 + 1024 });
      expect(await dirtyIn('vda', name)).toEqual(rounded(await dataIn('vda'), CLUSTER));
    }
    await expect(
      machine.populate({ sources: [disk], targets: [{ disk, name: 'x', persistent: true }] }),
    ).rejects.toMatchObject({
      code: 'ERR_MACHINE_DISK',
      message: expect.stringMatching(/leave out persistent/),
    });
  });
});

test('a populate of a disk by its device starts an NBD server in QEMU, and stops it', async () => {
  const folder = await peers.folder();
  const file = join(folder, 'own.qcow2');
  await createQcow2(file, { size: 2 ** 20 });
  await run('qemu-io', ['-c', 'write -P 7 128k 4k', file]);
  const qemu = await peers.machine([
    ...['-blockdev', `file,filename=${file},node-name=f`, '-blockdev', 'qcow2,file=f,node-name=q'],
    ...['-blockdev', 'throttle,throttle-group=g,file=q,node-name=t'],
    ...['-object', 'throttle-group,id=g', '-device', 'virtio-blk-pci,drive=t,id=vda'],
  ]);
  const sessions = join(folder, 'own');
  mkdirSync(sessions);
  const monitor = { path: qemu.server.path };
  await using own = await Machine.connect({ monitor, folder: sessions });
  const options = { sources: ['vda'], targets: [{ disk: 'vda', name: 'b' }] };
  for (const isNew of [true, false]) {
    const { bitmaps, warnings } = await own.populate(options);
    expect(bitmaps).toMatchObject([{ disk: 'vda', node: 'q', dirtyBytes: CLUSTER, isNew }]);
    expect(warnings).toEqual([]);
    expect(readdirSync(sessions)).toEqual([]);
  }
  // Nothing listens any more where another server could.
  await expect(own.monitor.execute('nbd-server-stop')).rejects.toThrow(/NBD server not running/);
});

describe('a populate that cannot be', () => {
  beforeEach(() => setUp({ disks: 2 }));
  afterEach(tearDown);
  const disk = { node: 'vda' };
  const populate = (more: Partial<MachinePopulateOptions> = {}) =>
    machine.populate({ sources: [disk], targets: [{ disk, name: 'b' }], ...more });

  test('says what to do about a bitmap that is inconsistent', async () => {
    await populate();
    await machine.close();
    // Stored once, and in use when QEMU is killed.
    await live.stop();
    await live.start();
    await live.stop('SIGKILL');
    await live.start();
    machine = await live.connect();
    await expect(populate()).rejects.toMatchObject({
      code: 'ERR_BITMAP_INCONSISTENT',
      message: expect.stringMatching(/block-dirty-bitmap-remove with "node": "vda", "name": "b"/),
    });
    await live.other.execute('block-dirty-bitmap-remove', { node: 'vda', name: 'b' });
    expect((await populate()).bitmaps[0].isNew).toBe(true);
  });

  test('leaves no bitmap when QEMU refuses a step, or its caller gives up', async () => {
    const targets = ['vda', 'vdb'].map((node) => ({ disk: { node }, name: 'b' }));
    let [failed, transactions] = [false, 0];
    live.proxy.reset({
      before: async ({ name }) => {
        // Somebody adds one of that name before the second transaction, which merges.
        if (name !== 'transaction' || ++transactions !== 2) return;
        failed = true;
        await live.other.execute('block-dirty-bitmap-add', { node: 'vdb', name: 'b' });
      },
    });
    await expect(populate({ targets })).rejects.toMatchObject({ code: 'ERR_QMP_COMMAND' });
    expect(failed).toBe(true);
    expect(await live.leftovers()).toEqual(['bitmap vdb/b']);
    await live.other.execute('block-dirty-bitmap-remove', { node: 'vdb', name: 'b' });
    live.proxy.reset({
      before: ({ name }) => {
        if (name !== 'blockdev-add') return;
        const [session] = readdirSync(live.folder);
        rmSync(join(live.folder, session, '0.qcow2'));
      },
    });
    await expect(populate({ targets })).rejects.toMatchObject({
      code: 'ERR_QMP_COMMAND',
      message: expect.stringMatching(/let this process serve the bits to it \(serve\)/),
    });
    expect(await live.leftovers()).toEqual([]);
    const job = populate({ targets });
    live.proxy.reset({ after: ({ name }) => void (name === 'block-export-add' && job.stop()) });
    await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    expect(await live.leftovers()).toEqual([]);
  });

  test('says what is in the way, and changes nothing', async () => {
    const add = (name: string, more: object = {}) =>
      live.other.execute('block-dirty-bitmap-add', { node: 'vda', name, ...more });
    await add('disabled', { disabled: true });
    await add('fine', { granularity: 4096 });
    const there = await live.leftovers();
    const target = (name: string, granularity?: number) => ({
      targets: [{ disk, name, granularity }],
    });
    const refusals: [Partial<MachinePopulateOptions>, string, RegExp][] = [
      [target('disabled'), 'ERR_MACHINE_BUSY', /block-dirty-bitmap-enable/],
      [target('fine', CLUSTER), 'ERR_BITMAP_MISMATCH', /granularity of 4096 bytes already/],
      [{ merge: [{ disk, name: 'no' }] }, 'ERR_BITMAP_UNKNOWN', /"fine"/],
      [{ sources: [{ node: 'nowhere' }] }, 'ERR_MACHINE_DISK', /no node "nowhere"/],
    ];
    for (const [options, code, message] of refusals) {
      await expect(populate(options)).rejects.toMatchObject({
        code,
        message: expect.stringMatching(message),
      });
    }
    const twice = [target('b'), target('b')].flatMap(({ targets }) => targets);
    await expect(populate({ targets: twice })).rejects.toThrow(TypeError);
    expect(() => populate({ targets: [] })).toThrow(/targets must be a list/);
    expect(() => populate(target('b', 1000))).toThrow(RangeError);
    expect(() => populate(target(''))).toThrow(/1 to 1023 bytes/);
    await machine.close();
    for (const folder of [live.file('vda'), join(live.folder, 'missing')]) {
      await using elsewhere = await Machine.connect({
        ...live.options,
        monitor: { path: live.proxy.path },
        folder,
      });
      await expect(
        elsewhere.populate({ sources: [disk], targets: [{ disk, name: 'b' }] }),
      ).rejects.toMatchObject({
        code: 'ERR_DEVICE_OPEN',
        message: expect.stringContaining(folder),
      });
    }
    expect(await live.leftovers()).toEqual(there);
  });
});

describe('lacuna populate --qmp', () => {
  beforeEach(() => setUp());
  afterEach(tearDown);

  test('prints what became dirty, and refuses flags that are for files', async () => {
    await live.guests[0].write(0, random.bytes(100));
    await machine.close();
    const { path } = live.proxy;
    const flags = ['--nbd', `nbd+unix:///?socket=${live.nbd.path}`, '--scratch', live.folder];
    const cli = (...args: string[]) => runCli(['populate', '--qmp', path, ...flags, ...args]);
    const said = await cli('node:vda', '--name', 'b0');
    expect(said).toMatchObject({ code: 0, stderr: '' });
    expect(said.stdout).toBe('64 KiB of 1 MiB (6.25 %) are dirty in "b0" of vda.\n');
    const json = await cli(
      'node:vda',
      '--into',
      'node:vda:b0',
      '--into',
      'node:vda:c',
      '-g',
      '64K',
      '--json',
    );
    expect(JSON.parse(json.stdout).bitmaps).toMatchObject([
      { disk: 'vda', name: 'b0', dirtyBytes: CLUSTER, isNew: false },
      { disk: 'vda', name: 'c', dirtyBytes: CLUSTER, isNew: true },
    ]);
    expect(await live.leftovers()).toEqual(['bitmap vda/b0', 'bitmap vda/c']);
    for (const args of [
      ['-o', 'x'],
      ['--into', 'node:vda'],
    ]) {
      expect(await cli('node:vda', ...args), args.join(' ')).toMatchObject({ code: 2 });
    }
    const missing = await runCli(['populate', 'x.raw']);
    expect(missing).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/--output FILE, or --qmp SOCKET/),
    });
    const alone = await runCli(['populate', 'x.raw', '-o', 'y', '--into', 'vda:b']);
    expect(alone).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/--into is for a running machine/),
    });
  });
});
