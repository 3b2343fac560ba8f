import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { checkQcow2, openDevice } from 'lacuna';
import { expect, test } from 'vitest';
import { checkImage } from '#dist/block/drivers/qcow2/check/check.js';
import { readHeader } from '#dist/block/drivers/qcow2/io/read-header.js';
import { firesAfter } from '../../support/fires-after.js';
import { run } from '../../support/peers.js';
import {
  createImage,
  makeNoise,
  qemuBytes,
  qemuIo,
  randomCommands,
  soundImage,
} from '../../support/qemu-images.js';
import { runHere } from '../../support/run-here.js';
import { workInNewFolders } from '../../support/temporary-folder.js';
import { Random } from '../../unit/bitmap/random.js';

const KIB = 1024;
const MIB = 1024 * KIB;

workInNewFolders();

interface Told {
  readonly code: number;
  readonly numbers: Record<string, number>;
}

const KEYS = [
  ...['check-errors', 'corruptions', 'corruptions-fixed', 'leaks', 'leaks-fixed'],
  ...['image-end-offset', 'total-clusters', 'allocated-clusters'],
  ...['fragmented-clusters', 'compressed-clusters'],
];

function numbersIn(json: string): Record<string, number> {
  const found = JSON.parse(json);
  return Object.fromEntries(KEYS.map((key) => [key, found[key] ?? 0]));
}

/** What `qemu-img check` says; undefined where it gives up. */
async function theirs(path: string, ...more: string[]): Promise<Told | undefined> {
  const args = ['check', '-f', 'qcow2', '--output=json', ...more, path];
  const { code = 0, stdout } = (await run('qemu-img', args).then(
    (text) => ({ stdout: text }),
    (error) => error,
  )) as { code?: number; stdout: string };
  return stdout === '' ? undefined : { code, numbers: numbersIn(stdout) };
}

async function ours(path: string, ...more: string[]): Promise<Told> {
  const { code, stdout } = await runHere(['check', '-f', 'qcow2', '--json', ...more, path]);
  return { code: code!, numbers: numbersIn(stdout) };
}

/** Random options, and what QEMU's tools make of them: snapshots, bitmaps and compressed clusters included. */
async function randomImage(random: Random, path = 'disk.qcow2'): Promise<string> {
  const clusterSize = random.pick([512, 4 * KIB, 64 * KIB]);
  const size = random.between(1, 64) * clusterSize * 8;
  const extended = clusterSize >= 16 * KIB && random.between(0, 2) === 0;
  const isOld = !extended && random.between(0, 4) === 0;
  const bits = isOld ? 16 : random.pick([8, 16, 64]);
  await createImage(path, size, [
    `cluster_size=${clusterSize},refcount_bits=${bits},extended_l2=${extended ? 'on' : 'off'}`,
    `compat=${isOld ? '0.10' : '1.1'}`,
  ]);
  const noise = makeNoise('.', random);
  const compressed = !extended && random.between(0, 1) === 0;
  const work = { size, clusterSize, count: 12, noise, compressed, zeroes: !isOld };
  for (const name of ['a', 'b']) {
    await qemuIo(path, randomCommands(random, work));
    if (random.between(0, 1) === 0) await run('qemu-img', ['snapshot', '-c', name, path]);
    else if (!isOld) await run('qemu-img', ['bitmap', '--add', '-g', '64k', path, name]);
  }
  await qemuIo(path, randomCommands(random, work));
  return path;
}

/** Where things lie in an image, by its header. */
function layoutOf(bytes: Buffer) {
  const clusterSize = 2 ** bytes.readUInt32BE(20);
  const at = (offset: number) => Number(bytes.readBigUInt64BE(offset) & 0x00ff_ffff_ffff_fe00n);
  const l1 = { offset: at(40), entries: bytes.readUInt32BE(36) };
  const l2 = Array.from({ length: l1.entries }, (_, i) => at(l1.offset + i * 8));
  const block = at(at(48));
  return { clusterSize, l1, l2: l2.filter((offset) => offset > 0), block };
}

/** Changes one thing that a check looks at. */
function damage(path: string, random: Random): string {
  const bytes = readFileSync(path);
  const { l1, l2, block, clusterSize } = layoutOf(bytes);
  const kind = random.pick(['refcount', 'refcount', 'l1', 'l2', 'l2', 'table']);
  const places: Record<string, number> = {
    refcount: block + random.between(0, Math.min(clusterSize, Math.ceil(bytes.length / 512)) - 1),
    l1: l1.offset + random.between(0, l1.entries * 8 - 1),
    l2: random.pick(l2) + random.between(0, clusterSize - 1),
    table: Number(bytes.readBigUInt64BE(48)) + random.between(0, 15),
  };
  const place = places[kind];
  bytes[place] ^= 1 << random.between(0, 7);
  writeFileSync(path, bytes);
  return `${kind} at ${place}`;
}

test('random images are checked as qemu-img checks them', async () => {
  const random = new Random(Random.seed());
  for (let round = 0; round < 5; round++) {
    const path = await soundImage(random, (each) => randomImage(each));
    expect(await ours(path), `round ${round}`).toEqual(await theirs(path));
  }
});

test('an image that is looked at in many parts is found the same', async () => {
  const random = new Random(Random.seed());
  const path = await soundImage(random, (each) => randomImage(each));
  for (let i = 0; i < 4; i++) spoilRefcounts(path, random, { low: true });
  await using file = await openDevice(path, { format: 'raw' });
  const header = await readHeader(file);
  expect(await checkImage(file, header, { window: 7 })).toEqual(await checkImage(file, header));
});

test('damaged images have as many corruptions, leaks and errors as qemu-img finds', async () => {
  const random = new Random(Random.seed());
  let compared = 0;
  for (let round = 0; round < 4; round++) {
    const path = await soundImage(random, (each) => randomImage(each));
    for (let i = 0; i < 8; i++) {
      copyFileSync(path, 'bad.qcow2');
      const what = Array.from({ length: random.between(1, 3) }, () => damage('bad.qcow2', random));
      const told = await theirs('bad.qcow2');
      const found = await ours('bad.qcow2').catch(() => undefined);
      if (told === undefined) continue;
      expect(found, `round ${round}: ${what.join(', ')}`).toEqual(told);
      compared++;
    }
  }
  expect(compared).toBeGreaterThan(20);
});

/** Changes refcounts so that some are too high, and some too low. */
function spoilRefcounts(path: string, random: Random, { low }: { low: boolean }): void {
  const bytes = readFileSync(path);
  const { block, clusterSize } = layoutOf(bytes);
  const width = 2 ** bytes.readUInt32BE(96) / 8;
  const clusters = Math.min(bytes.length, clusterSize ** 2 / width) / clusterSize;
  for (let i = 0; i < 6; i++) {
    // The lowest byte of a refcount of 8 bits and more.
    const place = block + random.between(0, Math.floor(clusters) - 1) * width + width - 1;
    if (!low || random.between(0, 1) === 0) bytes[place] += 1;
    else if (bytes[place] > 0) bytes[place] -= 1;
  }
  writeFileSync(path, bytes);
}

test.each([
  ['leaks', false],
  ['leaks', true],
  ['all', true],
] as const)(
  '--repair %s leaves what qemu-img leaves (refcounts too low: %s)',
  async (mode, low) => {
    const random = new Random(Random.seed());
    for (let round = 0; round < 2; round++) {
      const path = await soundImage(random, (each) => randomImage(each));
      const shown = await qemuBytes(path);
      spoilRefcounts(path, random, { low });
      copyFileSync(path, 'theirs.qcow2');
      const told = await theirs('theirs.qcow2', '-r', mode);
      const found = await ours(path, '--repair', mode);
      if (low && mode === 'leaks') {
        // What is left is told differently where QEMU would have to make all refcounts anew.
        expect(found.numbers['leaks-fixed'] > 0 || told?.numbers['leaks-fixed'] === 0).toBe(true);
      } else {
        expect({ ...found.numbers, 'image-end-offset': 0 }, `round ${round}`).toEqual({
          ...told!.numbers,
          'image-end-offset': 0,
        });
        expect(await run('qemu-img', ['check', path])).toContain('No errors');
      }
      expect(await theirs(path), `round ${round}`).toEqual({
        code: found.code,
        numbers: { ...found.numbers, 'leaks-fixed': 0, 'corruptions-fixed': 0 },
      });
      expect((await qemuBytes(path)).equals(shown)).toBe(true);
    }
  },
);

test('says in words what is wrong, what to do, and what was done', async () => {
  await createImage('disk.qcow2', MIB);
  await qemuIo('disk.qcow2', ['write 0 128k']);
  expect(await runHere(['check', 'disk.qcow2'])).toEqual({
    code: 0,
    stdout:
      'No errors were found in disk.qcow2.\nAllocated: 2 of 16 clusters (12.5 %), 0 % fragmented, 0 % compressed; the image ends at byte 458752.\n',
    stderr: '',
  });
  const bytes = readFileSync('disk.qcow2');
  const { block } = layoutOf(bytes);
  bytes[block + 2 * 5 + 1] = 2;
  writeFileSync('disk.qcow2', bytes);
  const leaking = await runHere(['check', 'disk.qcow2']);
  expect([leaking.code, leaking.stderr]).toEqual([
    2,
    'lacuna: cluster 5 has refcount 2, and references: 1\nlacuna: the cluster at 327680 is marked wrongly as alone or shared\n',
  ]);
  expect(leaking.stdout).toContain('--repair all');
  const repaired = await runHere(['check', '--repair', 'all', 'disk.qcow2']);
  expect([repaired.code, repaired.stderr]).toEqual([0, '']);
  expect(repaired.stdout).toContain('Repaired 1 leaked cluster of disk.qcow2.');
  expect(await runHere(['check', '-q', 'disk.qcow2'])).toEqual({ code: 0, stdout: '', stderr: '' });
});

/** An image with two clusters: one has too high a refcount and a wrong mark, the other too low a refcount. */
async function spoiledImage(): Promise<{ high: number; low: number }> {
  await createImage('disk.qcow2', MIB);
  await qemuIo('disk.qcow2', ['write 0 128k']);
  const bytes = readFileSync('disk.qcow2');
  const { block, l2, clusterSize } = layoutOf(bytes);
  const data = Number(bytes.readBigUInt64BE(l2[0]) & 0x00ff_ffff_ffff_fe00n) / clusterSize;
  const [high, low] = [block + 2 * data + 1, block + 2 * (data + 1) + 1];
  bytes[high] = 2;
  bytes[low] = 0;
  bytes[l2[0]] &= 0x7f;
  writeFileSync('disk.qcow2', bytes);
  return { high, low };
}

test('--repair leaks raises no refcount', async () => {
  const { high, low } = await spoiledImage();
  expect((await runHere(['check', '--repair', 'leaks', 'disk.qcow2'])).code).toBe(2);
  const bytes = readFileSync('disk.qcow2');
  expect([bytes[high], bytes[low]]).toEqual([1, 0]);
});

test('a repair clears what the image says of its refcounts, and features that are not known', async () => {
  await spoiledImage();
  const bytes = readFileSync('disk.qcow2');
  // It was not closed, and is corrupt; another program knows what bit 5 means.
  bytes[79] |= 3;
  bytes[95] |= 0x20;
  writeFileSync('disk.qcow2', bytes);
  expect((await runHere(['check', '--repair', 'all', 'disk.qcow2'])).code).toBe(0);
  const repaired = readFileSync('disk.qcow2');
  expect([repaired[79], repaired[95]]).toEqual([0, 0]);
});

test.each([
  ['not closed', 1],
  ['corrupt', 2],
])(
  'an image that is marked as %s, and sound, is told so until it is repaired',
  async (mark, bit) => {
    await createImage('disk.qcow2', MIB);
    const bytes = readFileSync('disk.qcow2');
    bytes[79] |= bit;
    writeFileSync('disk.qcow2', bytes);
    const told = `It is marked as ${mark}: --repair all clears the mark.`;
    const { code, stdout } = await runHere(['check', 'disk.qcow2']);
    expect([code, stdout]).toEqual([0, expect.stringContaining(told)]);
    const repaired = await runHere(['check', '--repair', 'all', 'disk.qcow2']);
    expect([repaired.code, repaired.stdout]).toEqual([0, expect.not.stringContaining('marked')]);
  },
);

test('a repair that is interrupted is done again by opening the image for writing', async () => {
  await spoiledImage();
  const spoiled = readFileSync('disk.qcow2');
  let changed = 0;
  for (let looks = 0; ; looks++) {
    writeFileSync('disk.qcow2', spoiled);
    const repair = checkQcow2('disk.qcow2', { repair: 'all', signal: firesAfter(looks) });
    const code = await repair.then(
      () => undefined,
      (error) => error.code,
    );
    if (code === undefined) break;
    expect([looks, code]).toEqual([looks, 'ERR_ABORTED']);
    if (readFileSync('disk.qcow2').equals(spoiled)) continue;
    changed++;
    await (await openDevice('disk.qcow2', { writable: true })).close();
    expect([looks, (await ours('disk.qcow2')).code]).toEqual([looks, 0]);
  }
  expect(changed).toBeGreaterThan(0);
});

test('a check ends when it is interrupted', async () => {
  await createImage('disk.qcow2', MIB);
  await qemuIo('disk.qcow2', ['write 0 128k']);
  for (let looks = 0; looks < 4; looks++) {
    const check = checkQcow2('disk.qcow2', { signal: firesAfter(looks) });
    await expect(check, `${looks} looks`).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  }
});

test('of very many problems the first hundred are told in words, and the others counted', async () => {
  await createImage('disk.qcow2', 16 * MIB);
  await qemuIo('disk.qcow2', ['write 0 16M']);
  const bytes = readFileSync('disk.qcow2');
  const { block } = layoutOf(bytes);
  for (let cluster = 5; cluster < 5 + 150; cluster++) bytes[block + 2 * cluster + 1] = 2;
  writeFileSync('disk.qcow2', bytes);
  const { stderr } = await runHere(['check', 'disk.qcow2']);
  const lines = stderr.trimEnd().split('\n');
  // Each is leaked, and marked wrongly.
  expect([lines.length, lines.at(-1)]).toEqual([101, 'lacuna: and 200 more problems']);
});

test('an image with a wrong entry in a table is left as it was', async () => {
  await createImage('disk.qcow2', MIB);
  await qemuIo('disk.qcow2', ['write 0 128k']);
  const bytes = readFileSync('disk.qcow2');
  bytes[layoutOf(bytes).l2[0] + 6] = 2;
  writeFileSync('disk.qcow2', bytes);
  const { code, stdout } = await runHere(['check', '--repair', 'all', 'disk.qcow2']);
  expect([code, stdout]).toEqual([2, expect.stringContaining('was not changed')]);
  expect(readFileSync('disk.qcow2').equals(bytes)).toBe(true);
});

test('an image that uses a cluster for two things is not repaired, and not marked', async () => {
  await createImage('disk.qcow2', MIB);
  await qemuIo('disk.qcow2', ['write 0 128k']);
  const bytes = readFileSync('disk.qcow2');
  const { l1, l2 } = layoutOf(bytes);
  // A cluster of the disk that is the L1 table too.
  bytes.writeBigUInt64BE(BigInt(l1.offset), l2[0]);
  writeFileSync('disk.qcow2', bytes);
  await expect(checkQcow2('disk.qcow2', { repair: 'all' })).rejects.toMatchObject({
    code: 'ERR_QCOW2_CORRUPT',
  });
  expect(readFileSync('disk.qcow2').equals(bytes)).toBe(true);
});

test('what is no qcow2 image cannot be checked, which has an exit code of its own', async () => {
  writeFileSync('disk.raw', 'raw');
  const { code, stderr } = await runHere(['check', 'disk.raw']);
  expect([code, stderr]).toEqual([63, expect.stringContaining('-f qcow2')]);
  expect((await runHere(['check', 'disk.vmdk'])).code).toBe(63);
  const missing = await runHere(['check', 'missing.qcow2']);
  expect([missing.code, missing.stderr]).toEqual([1, expect.stringContaining('ERR_DEVICE_OPEN')]);
  await expect(checkQcow2('x.qcow2', { repair: 'some' as never })).rejects.toThrow(RangeError);
});

test('an image that somebody writes is looked at only with -U, and never repaired', async () => {
  await createImage('disk.qcow2', MIB);
  const inUse = await openDevice('disk.qcow2', { writable: true });
  try {
    expect((await runHere(['check', 'disk.qcow2'])).stderr).toContain('ERR_DEVICE_LOCKED');
    expect((await runHere(['check', '-U', 'disk.qcow2'])).code).toBe(0);
    expect((await runHere(['check', '--repair', 'all', 'disk.qcow2'])).code).toBe(1);
    expect((await runHere(['check', '-U', '--repair', 'all', 'disk.qcow2'])).code).toBe(2);
  } finally {
    await inUse.close();
  }
});
