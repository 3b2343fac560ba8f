import {
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { openDevice } from 'lacuna';
import { expect, test } from 'vitest';
import { firesAfter } from '../../support/fires-after.js';
import { run } from '../../support/peers.js';
import { qemuMap } from '../../support/qemu-images.js';
import { runHere } from '../../support/run-here.js';
import { workInNewFolders } from '../../support/temporary-folder.js';
import { Random } from '../../unit/bitmap/random.js';

const KIB = 1024;
const MIB = 1024 * KIB;

let folder = '';
workInNewFolders((entered) => {
  folder = entered;
});

async function lacuna(...args: string[]) {
  return runHere(['create', ...args]);
}

/** What qemu-img tells of an image, beside its name and what the file system says. */
async function told(path: string): Promise<{ map: unknown }> {
  const args = ['info', '--output=json', path];
  const {
    filename: _,
    'actual-size': _space,
    children: _files,
    ...info
  } = JSON.parse(await run('qemu-img', args));
  return { ...info, map: await qemuMap(path) };
}

/** Options of -o that go together, by chance. */
function randomOptions(random: Random): string[] {
  const options = [`cluster_size=${random.pick(['4k', '64K', '128k', '1M'])}`];
  if (random.between(0, 3) === 0) {
    options.push(`compat=${random.pick(['0.10', 'v2'])}`);
    return [...options, `preallocation=${random.pick(['off', 'metadata', 'falloc'])}`];
  }
  options.push(`compat=${random.pick(['1.1', 'v3'])}`);
  options.push(`refcount_bits=${random.pick([1, 2, 4, 8, 16, 32, 64])}`);
  options.push(`lazy_refcounts=${random.pick(['on', 'off'])}`);
  options.push(`compression_type=${random.pick(['zlib', 'zstd'])}`);
  options.push(`preallocation=${random.pick(['off', 'metadata', 'falloc', 'full'])}`);
  if (!options[0].endsWith('4k')) options.push(`extended_l2=${random.pick(['on', 'off'])}`);
  return options;
}

test('an image made with random options is what qemu-img makes with the same', async () => {
  const random = new Random(Random.seed());
  for (let round = 0; round < 10; round++) {
    const options = randomOptions(random).join(',');
    const size = `${random.between(1, 12 * KIB) * KIB}`;
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', options, 'theirs.qcow2', size]);
    const ours = await lacuna('-o', options, 'ours.qcow2', size);
    expect(ours, options).toMatchObject({ code: 0, stderr: '' });
    const [own, their] = [await told('ours.qcow2'), await told('theirs.qcow2')];
    // QEMU preallocates such clusters, and marks their subclusters as not allocated all the same.
    if (/preallocation=(?!off).*extended_l2=on/.test(options)) own.map = their.map;
    expect(own, options).toEqual(their);
    expect(await run('qemu-img', ['check', 'ours.qcow2'])).toContain('No errors');
  }
});

test('an image over a backing file is as large as that, and keeps its name as it was said', async () => {
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', 'base.qcow2', '3M']);
  await run('qemu-img', ['create', '-q', '-f', 'raw', 'base.raw', '2M']);
  for (const [base, format] of [
    ['base.qcow2', 'qcow2'],
    ['base.raw', 'raw'],
  ]) {
    const backing = ['-b', base, '-F', format];
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing, 'theirs.qcow2']);
    expect(await lacuna(...backing, 'ours.qcow2')).toMatchObject({ code: 0, stderr: '' });
    expect(await told('ours.qcow2')).toEqual(await told('theirs.qcow2'));
  }
});

test('a backing file that is not there needs --unsafe and a size', async () => {
  const backing = ['-b', 'later.qcow2', '-F', 'qcow2'];
  const refused = await lacuna(...backing, 'over.qcow2', '1M');
  expect([refused.code, existsSync('over.qcow2')]).toEqual([1, false]);
  expect(refused.stderr).toMatch(/later\.qcow2.*ERR_DEVICE_OPEN/);
  expect((await lacuna('-u', ...backing, 'over.qcow2')).stderr).toContain('say the size');
  expect(await lacuna('-u', ...backing, 'over.qcow2', '1M')).toMatchObject({ code: 0 });
});

test('the size of a backing file is looked up while a machine writes to it', async () => {
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', 'base.qcow2', '3M']);
  await using _machine = await openDevice('base.qcow2', { writable: true });
  const { code, stdout } = await lacuna('--json', '-b', 'base.qcow2', '-F', 'qcow2', 'over.qcow2');
  expect([code, JSON.parse(stdout).size]).toEqual([0, 3 * MIB]);
});

test.each([
  ['nbd://localhost/disk', 'raw'],
  ['base.vmdk', 'vmdk'],
])('over %s an image is made with --unsafe only', async (base, format) => {
  const backing = ['-b', base, '-F', format];
  const refused = await lacuna(...backing, 'over.qcow2', '1M');
  expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining('--unsafe')]);
  expect(await lacuna('-u', ...backing, 'over.qcow2', '1M')).toMatchObject({ code: 0 });
});

test('a raw file is as long as it was said, and takes no space, or all of it', async () => {
  expect((await lacuna('disk.raw', '1.5M')).stdout).toBe(
    'Made disk.raw: raw, 1.5 MiB (1572864 bytes).\n',
  );
  expect([statSync('disk.raw').size, statSync('disk.raw').blocks]).toEqual([1.5 * MIB, 0]);
  expect(await lacuna('-q', '-o', 'preallocation=full', 'full.raw', '1M')).toMatchObject({
    code: 0,
    stdout: '',
  });
  expect(statSync('full.raw').blocks * 512).toBeGreaterThanOrEqual(MIB);
});

test('the format is that of the name, or that which is said', async () => {
  const { stdout } = await lacuna('--json', '-f', 'qcow2', 'disk.img', '1M');
  expect(JSON.parse(stdout)).toEqual({ filename: 'disk.img', format: 'qcow2', size: MIB });
  await lacuna('disk.raw', '64k');
  expect(readFileSync('disk.img').subarray(0, 4).toString('latin1')).toBe('QFI\xfb');
  expect(readFileSync('disk.raw').every((byte) => byte === 0)).toBe(true);
});

test('a file that is there is replaced, unless --exclusive is said', async () => {
  writeFileSync('disk.raw', 'something');
  const refused = await lacuna('--exclusive', 'disk.raw', '1M');
  expect([refused.code, readFileSync('disk.raw', 'utf8')]).toEqual([1, 'something']);
  expect(refused.stderr).toContain('ERR_DEVICE_OPEN');
  expect(await lacuna('disk.raw', '1M')).toMatchObject({ code: 0 });
  expect(statSync('disk.raw').size).toBe(MIB);
  expect(await lacuna('--exclusive', 'new.raw', '1M')).toMatchObject({ code: 0 });
});

test('a file that somebody uses is replaced neither as an image nor as its data file', async () => {
  writeFileSync('disk.raw', 'something');
  await using _user = await openDevice('disk.raw', { writable: true });
  for (const args of [
    ['disk.raw', '1M'],
    ['-f', 'qcow2', 'disk.raw', '1M'],
    ['-o', 'data_file=disk.raw', 'disk.qcow2', '1M'],
  ]) {
    const { code, stderr } = await lacuna(...args);
    expect([args, code, stderr]).toEqual([args, 1, expect.stringContaining('ERR_DEVICE_LOCKED')]);
  }
  expect([readFileSync('disk.raw', 'utf8'), readdirSync(folder)]).toEqual([
    'something',
    ['disk.raw'],
  ]);
});

test('--exclusive keeps a data file that is there', async () => {
  writeFileSync('disk.data', 'something');
  const refused = await lacuna('--exclusive', '-o', 'data_file=disk.data', 'disk.qcow2', '1M');
  expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('ERR_DEVICE_OPEN')]);
  expect(readFileSync('disk.data', 'utf8')).toBe('something');
  expect(existsSync('disk.qcow2')).toBe(false);
  expect(await lacuna('-o', 'data_file=disk.data', 'disk.qcow2', '1M')).toMatchObject({ code: 0 });
  expect(statSync('disk.data').size).toBe(MIB);
});

test.each([
  ['a raw file', ['disk.raw']],
  ['an image', ['disk.qcow2']],
  ['an image with a data file', ['-o', 'data_file=disk.data', 'disk.qcow2']],
])('Ctrl-C ends the preallocation of %s anywhere, and nothing is left', async (_what, args) => {
  const command = ['create', '-o', 'preallocation=full', ...args, '16M'];
  let looks = 0;
  for (; ; looks++) {
    const { code } = await runHere(command, { signal: firesAfter(looks) });
    if (code === 0) break;
    expect([looks, code, readdirSync(folder)]).toEqual([looks, 130, []]);
  }
  expect(looks).toBeGreaterThan(2);
});

test('neither a base nor its data file is replaced by what lies over it', async () => {
  writeFileSync('base.raw', 'the base');
  symlinkSync('base.raw', 'link.qcow2');
  const backing = ['-b', 'base.raw', '-F', 'raw'];
  for (const args of [
    [...backing, 'link.qcow2'],
    [...backing, '-o', 'data_file=base.raw', 'over.qcow2'],
    ['-u', '-b', 'itself.qcow2', '-F', 'qcow2', 'itself.qcow2', '1M'],
  ]) {
    const { code, stderr } = await lacuna(...args);
    expect([code, stderr]).toEqual([1, expect.stringContaining('ERR_IMAGE_CHAIN')]);
  }
  expect(readFileSync('base.raw', 'utf8')).toBe('the base');
  expect([existsSync('over.qcow2'), existsSync('itself.qcow2')]).toEqual([false, false]);
});

test('what cannot be made leaves no file, and says why', async () => {
  for (const [args, words] of [
    [['disk.qcow2'], 'say the size'],
    [['disk.raw', '1M', '-b', 'a.raw', '-F', 'raw'], 'no backing file'],
    [['disk.raw', '1M', '-o', 'cluster_size=64k'], 'only preallocation'],
    [['disk.raw', '1M', '-o', 'preallocation=metadata'], 'off, falloc, full'],
    [['disk.qcow2', '1M', '-o', 'cluster_size=3k'], 'cluster_size must be'],
    [['disk.qcow2', '1M', '-b', 'a.raw'], 'with -F'],
    [['disk.qcow2', '1M', '-u'], '--unsafe'],
    [['nbd://localhost/disk', '1M'], 'not the path of a file'],
    [['driver=file,filename=disk.raw', '1M'], 'not the path of a file'],
  ] as const) {
    const { code, stderr } = await lacuna(...args);
    expect([args, code, stderr]).toEqual([args, 2, expect.stringContaining(words)]);
  }
  for (const name of ['disk.raw', 'disk.qcow2']) {
    expect(existsSync(join(folder, name))).toBe(false);
  }
});
