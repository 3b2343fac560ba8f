/** What is told of images without changing them, compared with what qemu-img tells. */
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { run } from '../../support/peers.js';
import { createImage, makeNoise, qemuIo, randomCommands } from '../../support/qemu-images.js';
import { runHere } from '../../support/run-here.js';
import { workInNewFolders } from '../../support/temporary-folder.js';
import { Random } from '../../unit/bitmap/random.js';

const KIB = 1024;
const MIB = 1024 * KIB;

workInNewFolders();

async function lacuna(...args: string[]) {
  const result = await runHere(args);
  expect([result.code, result.stderr], args.join(' ')).toEqual([0, '']);
  return result.stdout;
}

async function qemuImg(...args: string[]) {
  return JSON.parse(await run('qemu-img', args));
}

/** An image with random content and bitmaps of random names. */
async function randomImage(random: Random, path: string): Promise<string> {
  const size = random.between(1, 400) * 32 * KIB;
  await createImage(path, size, [`cluster_size=${random.pick(['4k', '64k', '1M'])}`]);
  const work = { size, clusterSize: 64 * KIB, count: 10, noise: makeNoise('.', random) };
  await qemuIo(path, randomCommands(random, work));
  for (let i = random.between(0, 2); i > 0; i--) {
    const granularity = random.pick(['512', '4k', '64k']);
    await run('qemu-img', ['bitmap', '--add', '-g', granularity, path, 'b'.repeat(i * 9)]);
  }
  return path;
}

function randomOptions(random: Random): string[] {
  const clusterSize = random.pick(['4k', '64k', '2M']);
  const list = [`cluster_size=${clusterSize}`, `refcount_bits=${random.pick([1, 16, 64])}`];
  if (clusterSize !== '4k') list.push(`extended_l2=${random.pick(['on', 'off'])}`);
  list.push(`preallocation=${random.pick(['off', 'off', 'metadata', 'full'])}`);
  return ['-O', 'qcow2', '-o', list.join(',')];
}

test('measures an empty disk of any size as qemu-img measures it', async () => {
  const random = new Random(Random.seed());
  for (let i = 0; i < 12; i++) {
    const options = [...randomOptions(random), '--size', `${random.between(0, 2 ** 40)}`];
    const theirs = await qemuImg('measure', '--output=json', ...options);
    expect(JSON.parse(await lacuna('measure', '--json', ...options)), `${options}`).toEqual(theirs);
  }
});

test('measures what images and raw disks hold as qemu-img measures it', async () => {
  const random = new Random(Random.seed());
  for (let i = 0; i < 5; i++) {
    const image = await randomImage(random, `disk-${i}.qcow2`);
    await run('qemu-img', ['convert', '-O', 'raw', image, 'disk.raw']);
    for (const [format, path] of [
      ['qcow2', image],
      ['raw', 'disk.raw'],
    ]) {
      for (const options of [[], randomOptions(random), ['-O', 'qcow2', '-o', 'compat=0.10']]) {
        const args = [...options, '-f', format, path];
        const theirs = await qemuImg('measure', '--output=json', ...args);
        expect(JSON.parse(await lacuna('measure', '--json', ...args)), `${args}`).toEqual(theirs);
      }
    }
  }
});

test('measures the worst where an image would lie over a backing file, as qemu-img does', async () => {
  await createImage('disk.qcow2', '3M');
  await qemuIo('disk.qcow2', ['write 0 64k']);
  const backing = 'backing_file=base.raw,backing_fmt=raw';
  const args = ['measure', '-O', 'qcow2', '-o', backing, '-f', 'qcow2', 'disk.qcow2'];
  const theirs = await qemuImg(...args, '--output=json');
  expect(JSON.parse(await lacuna(...args, '--json'))).toEqual(theirs);
});

test('measures the room of inconsistent bitmaps too, as qemu-img does', async () => {
  await createImage('disk.qcow2', '3M');
  for (const name of ['b0', 'b1']) await run('qemu-img', ['bitmap', '--add', 'disk.qcow2', name]);
  const bytes = readFileSync('disk.qcow2');
  const extension = bytes.indexOf(Buffer.from([0x23, 0x85, 0x28, 0x75]));
  const directory = Number(bytes.readBigUInt64BE(extension + 24));
  // The first bitmap was in use when its image was left.
  bytes[directory + 15] |= 1;
  writeFileSync('disk.qcow2', bytes);
  const args = ['measure', '-O', 'qcow2', '-f', 'qcow2', 'disk.qcow2'];
  const theirs = await qemuImg(...args, '--output=json');
  expect(JSON.parse(await lacuna(...args, '--json'))).toEqual(theirs);
});

test('says what cannot be measured, and what to say instead', async () => {
  writeFileSync('disk.raw', 'raw');
  for (const [args, words] of [
    [[], 'name a source, or say --size'],
    [['disk.raw', '--size', '1M'], 'not both'],
    [['--size', '1M', '-o', 'cluster_size=64k'], '-O qcow2'],
    [['--size', '1M', '-O', 'qcow2', '-o', 'cluster_size=3k'], 'cluster_size must be'],
    [['--size', '4P', '-O', 'qcow2', '-o', 'cluster_size=512'], 'too large'],
  ] as const) {
    const { code, stderr } = await runHere(['measure', ...args]);
    expect([args, code, stderr]).toEqual([args, 2, expect.stringContaining(words)]);
  }
  expect(await lacuna('measure', '--size', '1M')).toBe(
    'required        1 MiB (1048576 bytes)\nfully allocated 1 MiB (1048576 bytes)\n',
  );
});

test('tells the space of every file of a chain as qemu-img does', async () => {
  await run('qemu-img', ['create', '-q', '-f', 'raw', 'base.raw', '3M']);
  writeFileSync('base.raw', Buffer.alloc(MIB, 7));
  truncateSync('base.raw', 3 * MIB);
  await createImage('mid.qcow2', '4M', [], ['-b', 'base.raw', '-F', 'raw']);
  await createImage('top.qcow2', '5M', [], ['-b', 'mid.qcow2', '-F', 'qcow2']);
  await qemuIo('mid.qcow2', ['write 1M 512k']);
  await qemuIo('top.qcow2', ['write 2M 256k']);
  const theirs = (await qemuImg('info', '--backing-chain', '--output=json', 'top.qcow2')) as Record<
    string,
    unknown
  >[];
  const keys = ['format', 'virtual-size', 'actual-size'];
  const told = (layers: Record<string, unknown>[]) =>
    layers.map((layer) => Object.fromEntries(keys.map((key) => [key, layer[key]])));
  const ours = JSON.parse(await lacuna('info', '--json', '--backing-chain', 'top.qcow2'));
  expect(told(ours)).toEqual(told(theirs));
  expect(await lacuna('info', '--backing-chain', 'top.qcow2')).toMatch(
    /^layer +\S*top\.qcow2 \(qcow2, 5 MiB, takes .*\nlayer .*mid\.qcow2 \(qcow2, 4 MiB.*\nlayer .*base\.raw \(raw, 3 MiB, takes 1 MiB/m,
  );
});

test('counts the data file of an image, which qemu-img leaves out', async () => {
  await createImage('disk.qcow2', '5M', ['data_file=disk.data']);
  await qemuIo('disk.qcow2', ['write 2M 256k']);
  const [layer] = JSON.parse(await lacuna('info', '--json', '--backing-chain', 'disk.qcow2'));
  const blocks = ['disk.qcow2', 'disk.data'].map((file) => statSync(file).blocks);
  expect(layer['actual-size']).toBe((blocks[0] + blocks[1]) * 512);
});

test('lists the snapshots that qemu-img has made', async () => {
  await createImage('disk.qcow2', '1M');
  expect(await lacuna('snapshot', '-l', 'disk.qcow2')).toBe('It has no snapshots.\n');
  for (const name of ['before', 'after the update']) {
    await run('qemu-img', ['snapshot', '-c', name, 'disk.qcow2']);
  }
  const { snapshots } = await qemuImg('info', '--output=json', 'disk.qcow2');
  const ours = JSON.parse(await lacuna('snapshot', '--json', 'disk.qcow2'));
  expect(
    ours.map(({ id, name, stateSize, date }: Record<string, string>) => {
      return { id, name, 'vm-state-size': stateSize, 'date-sec': Date.parse(date) / 1000 };
    }),
  ).toEqual(
    snapshots.map((each: Record<string, unknown>) => {
      return Object.fromEntries(
        ['id', 'name', 'vm-state-size', 'date-sec'].map((key) => [key, each[key]]),
      );
    }),
  );
  expect(await lacuna('snapshot', 'disk.qcow2')).toMatch(
    /^id {2}name +disk +state +date\n +1 {2}before +1 MiB +0 B +20\S+\n +2 {2}after the update /,
  );
  writeFileSync('disk.raw', 'raw');
  const { code, stderr } = await runHere(['snapshot', 'disk.raw']);
  expect([code, stderr]).toEqual([1, expect.stringContaining('ERR_DEVICE_FORMAT')]);
});
