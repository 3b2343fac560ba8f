import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { commit, openBitmaps, openDevice } from 'lacuna';
import { expect, it } from 'vitest';
import { attachLoopDevice } from '../../support/loop-device.js';
import { run } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';
import { scribble } from '../../support/scribble.js';
import { temporaryFolder } from '../../support/temporary-folder.js';
import { Random } from '../../unit/bitmap/random.js';

const MIB = 2 ** 20;
const folder = temporaryFolder();
let chains = 0;

interface Chain {
  base: string;
  top: string;
}

async function newChain(format: string, sizes: [number, number], random: Random): Promise<Chain> {
  const at = join(folder, `chain-${chains++}`);
  const [base, top] = [`${at}-base.${format}`, `${at}-top.qcow2`];
  await run('qemu-img', ['create', '-q', '-f', format, base, `${sizes[0]}`]);
  if (format === 'qcow2') scribble(base, sizes[0], random);
  const backing = ['-b', base, '-F', format];
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing, top, `${sizes[1]}`]);
  scribble(top, sizes[1], random);
  return { base, top };
}

it('commit leaves what a larger base has behind the end of the top', async () => {
  const random = new Random(Random.seed());
  const { base, top } = await newChain('qcow2', [16 * MIB, 9 * MIB + 512], random);
  const theirs = { base: `${base}.theirs`, top: `${top}.theirs` };
  cpSync(base, theirs.base);
  cpSync(top, theirs.top);
  await run('qemu-img', ['rebase', '-u', '-b', theirs.base, '-F', 'qcow2', theirs.top]);
  await run('qemu-img', ['commit', '-q', '-d', '-f', 'qcow2', theirs.top]);
  await run('qemu-img', ['bitmap', '--add', top, 'b']);
  await run('qemu-io', ['-f', 'qcow2', '-c', 'write 9M 512', top]);
  await run('qemu-io', ['-f', 'qcow2', '-c', 'write 9M 512', theirs.base]);
  const report = await commit({ top });
  expect(report.warnings).toEqual([expect.stringContaining('larger')]);
  expect(report.bitmaps).toEqual(['b']);
  expect(await dirtOf(base, 'b')).toEqual(new Set([9 * MIB]));
  expect(await run('qemu-img', ['compare', base, theirs.base])).toContain('identical');
});

async function dirtOf(path: string, name: string): Promise<Set<number>> {
  await using image = await openBitmaps(path);
  using bits = await image.load(name);
  const granules = new Set<number>();
  for (const { offset, length } of bits.ranges()) {
    for (let at = offset; at < offset + length; at += bits.granularity) granules.add(at);
  }
  return granules;
}

it.each([
  ['qcow2', 16 * MIB, 16 * MIB],
  ['qcow2', 8 * MIB, 16 * MIB],
  ['raw', 16 * MIB, 16 * MIB],
  ['raw', 8 * MIB, 16 * MIB],
])(
  'commit makes a %s base of %i bytes what the top of %i bytes showed',
  async (format, below, above) => {
    const seed = Random.seed();
    const { base, top } = await newChain(format, [below, above], new Random(seed));
    const before = `${top}.raw`;
    await run('qemu-img', ['convert', '-O', 'raw', top, before]);
    const { code, stderr } = await runCli(['commit', top]);
    expect([code, stderr], `LACUNA_SEED=${seed}`).toEqual([0, '']);
    for (const [path, kind] of [
      [base, format],
      [top, 'qcow2'],
    ]) {
      const compared = await run('qemu-img', ['compare', '-f', kind, '-F', 'raw', path, before]);
      expect(compared, `LACUNA_SEED=${seed}`).toContain('identical');
    }
    if (format === 'qcow2') expect(await run('qemu-img', ['check', base])).toContain('No errors');
  },
);

it('commit ends where it is stopped, and goes on when it is run again', async () => {
  const seed = Random.seed();
  const { base, top } = await newChain('qcow2', [16 * MIB, 16 * MIB], new Random(seed));
  const before = `${top}.raw`;
  await run('qemu-img', ['convert', '-O', 'raw', top, before]);
  const job = commit({ top, rate: 64 * 1024 });
  await expect.poll(() => job.progress().doneBytes).toBeGreaterThan(0);
  job.stop();
  await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
  expect(await run('qemu-img', ['check', base])).toContain('No errors');
  await commit({ top });
  const compared = await run('qemu-img', ['compare', '-F', 'raw', base, before]);
  expect(compared, `LACUNA_SEED=${seed}`).toContain('identical');
});

it('commit makes of a chain what qemu-img commit makes of it', async () => {
  const { base, top } = await newChain('qcow2', [MIB * 16, MIB * 16], new Random(Random.seed()));
  const theirs = { base: `${base}.theirs`, top: `${top}.theirs` };
  cpSync(base, theirs.base);
  cpSync(top, theirs.top);
  await run('qemu-img', [
    'rebase',
    '-u',
    '-f',
    'qcow2',
    '-b',
    theirs.base,
    '-F',
    'qcow2',
    theirs.top,
  ]);
  await run('qemu-img', ['commit', '-q', '-d', '-f', 'qcow2', theirs.top]);
  await commit({ top });
  const same = await run('qemu-img', ['compare', '-f', 'qcow2', '-F', 'qcow2', base, theirs.base]);
  expect(same).toContain('identical');
});

it('commit carries bitmaps along', async () => {
  const random = new Random(Random.seed());
  const { base, top } = await newChain('qcow2', [MIB * 16, MIB * 16], random);
  for (const name of ['both', 'below']) await run('qemu-img', ['bitmap', '--add', base, name]);
  scribble(base, 16 * MIB, random);
  const old = await dirtOf(base, 'both');
  await run('qemu-img', ['bitmap', '--add', top, 'both']);
  await run('qemu-img', ['bitmap', '--add', '--disable', '-g', '4k', top, 'off']);
  scribble(top, 16 * MIB, random);
  await run('qemu-img', ['bitmap', '--add', '-g', '4k', top, 'late']);
  await run('qemu-io', ['-f', 'qcow2', '-c', 'write 5M 1k', top]);
  const fresh = await dirtOf(top, 'both');
  const { bitmaps, warnings } = await commit({ top });
  expect([bitmaps, warnings]).toEqual([['both', 'off', 'late'], []]);
  const both = await dirtOf(base, 'both');
  for (const at of [...old, ...fresh]) expect(both.has(at)).toBe(true);
  // What the top held before a bitmap began is nothing new to it.
  expect([...(await dirtOf(base, 'late'))]).toEqual([5 * MIB]);
  expect((await dirtOf(base, 'off')).size).toBe(0);
  await using image = await openBitmaps(base);
  const states = image.bitmaps.list().map(({ name, recording }) => [name, recording]);
  expect(states).toEqual([
    ['both', true],
    ['below', true],
    ['off', false],
    ['late', true],
  ]);
  expect(await run('qemu-img', ['check', base])).toContain('No errors');
});

it('commit leaves bitmaps that the base cannot keep in the top, and says so', async () => {
  const at = join(folder, 'old');
  const [base, top] = [`${at}-base.qcow2`, `${at}-top.qcow2`];
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', base, `${MIB}`]);
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', top]);
  await run('qemu-img', ['bitmap', '--add', top, 'b']);
  await run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 5 64k 70k', top]);
  const { bitmaps, warnings } = await commit({ top });
  expect(bitmaps).toEqual([]);
  expect(warnings).toEqual([expect.stringMatching(/stay there: .*of version 2/)]);
  expect(await run('qemu-img', ['compare', base, top])).toContain('identical');
  expect(await run('qemu-img', ['check', base])).toContain('No errors');
  expect((await dirtOf(top, 'b')).size).toBe(2);
});

it('commit refuses what is in use, and what has nothing below it', async () => {
  const { base, top } = await newChain('qcow2', [MIB * 16, MIB * 16], new Random(Random.seed()));
  await expect(commit({ top: base })).rejects.toMatchObject({ code: 'ERR_IMAGE_CHAIN' });
  const used = await openDevice(top);
  await expect(commit({ top })).rejects.toMatchObject({ code: 'ERR_DEVICE_LOCKED' });
  await used.close();
  await commit({ top });
});

it('commit says what to do where the base is too small and cannot grow', async () => {
  const loop = attachLoopDevice(4 * MIB, 512);
  if (loop === undefined) expect.fail('no loop device could be attached: run the tests as root');
  try {
    const top = join(folder, 'over-a-device.qcow2');
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', loop.path, '-F', 'raw', top, '8M']);
    const backing = { driver: 'file', filename: loop.path } as const;
    const file = { driver: 'file', filename: top } as const;
    await expect(commit({ top: { driver: 'qcow2', file, backing } })).rejects.toMatchObject({
      code: 'ERR_COPY_MISMATCH',
      message: expect.stringContaining('make it larger'),
    });
  } finally {
    loop.detach();
  }
});
