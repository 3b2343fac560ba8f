import { linkSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { createQcow2, openBitmaps, rebase } from 'lacuna';
import { expect, it } from 'vitest';
import { run } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';
import { scribble } from '../../support/scribble.js';
import { temporaryFolder } from '../../support/temporary-folder.js';
import { Random } from '../../unit/bitmap/random.js';

const MIB = 2 ** 20;
const SIZE = 16 * MIB;
const folder = temporaryFolder();
let images = 0;

async function newImage(random: Random, size: number, ...options: string[]): Promise<string> {
  const path = join(folder, `disk-${images++}.qcow2`);
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...options, path, `${size}`]);
  scribble(path, size, random);
  return path;
}

async function shown(path: string): Promise<string> {
  const raw = join(folder, `shown-${images++}.raw`);
  await run('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', path, raw]);
  return raw;
}

async function expectShows(path: string, raw: string, seed: number): Promise<void> {
  const compared = await run('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', path, raw]);
  expect(compared, `LACUNA_SEED=${seed}`).toContain('identical');
  expect(await run('qemu-img', ['check', path])).toContain('No errors');
}

async function backingOf(path: string) {
  const info = JSON.parse(await run('qemu-img', ['info', '--output=json', path]));
  return [info['backing-filename'], info['backing-filename-format']];
}

it.each([
  ['another image', SIZE],
  ['a shorter one', 8 * MIB],
  ['a longer one', 24 * MIB],
])(
  'a rebased image shows the same over %s, and its bitmaps are as they were',
  async (_what, size) => {
    const seed = Random.seed();
    const random = new Random(seed);
    const old = await newImage(random, SIZE);
    const fresh = await newImage(random, size);
    const top = await newImage(random, SIZE, '-b', old, '-F', 'qcow2');
    await run('qemu-img', ['bitmap', '--add', top, 'b0']);
    await run('qemu-io', ['-f', 'qcow2', '-c', 'write 1M 64k', top]);
    const before = await shown(top);
    expect(await runCli(['rebase', top, '-b', fresh, '-F', 'qcow2'])).toMatchObject({ code: 0 });
    expect(await backingOf(top)).toEqual([fresh, 'qcow2']);
    await expectShows(top, before, seed);
    await using image = await openBitmaps(top);
    using bits = await image.load('b0');
    expect([...bits.ranges()]).toEqual([{ offset: MIB, length: 65536 }]);
  },
);

it('rebase writes nothing where the grandparent shows the same, and all where nothing is below', async () => {
  const seed = Random.seed();
  const random = new Random(seed);
  const base = await newImage(random, SIZE);
  const middle = join(folder, `disk-${images++}.qcow2`);
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', middle]);
  const top = await newImage(random, SIZE, '-b', middle, '-F', 'qcow2');
  const before = await shown(top);
  const backing = { filename: base, format: 'qcow2' };
  expect(await rebase({ image: top, backing })).toEqual({ writtenBytes: 0 });
  await expectShows(top, before, seed);
  expect((await rebase({ image: top, backing: null })).writtenBytes).toBeGreaterThan(0);
  expect(await backingOf(top)).toEqual([undefined, undefined]);
  await expectShows(top, before, seed);
});

it('rebase only changes the name where that is asked, whatever its length', async () => {
  const random = new Random(Random.seed());
  const base = await newImage(random, SIZE);
  const top = await newImage(random, SIZE, '-b', base, '-F', 'qcow2');
  await run('qemu-img', ['bitmap', '--add', top, 'b0']);
  for (const filename of ['gone.raw', `${'./'.repeat(300)}long.raw`, 'x.raw']) {
    const args = ['rebase', top, '-u', '-b', filename, '-F', 'raw', '--json'];
    expect(await runCli(args)).toMatchObject({ code: 0, stdout: '{"writtenBytes":0}\n' });
    expect(await backingOf(top)).toEqual([filename, 'raw']);
  }
  await using image = await openBitmaps(top);
  expect(image.bitmaps.count).toBe(1);
});

it('rebase asks for the format of the backing file, and refuses one that it cannot read', async () => {
  const random = new Random(Random.seed());
  const base = await newImage(random, SIZE);
  const top = await newImage(random, SIZE, '-b', base, '-F', 'qcow2');
  expect(await runCli(['rebase', top, '-b', base])).toMatchObject({ code: 2 });
  const backing = { filename: base, format: 'vmdk' };
  await expect(rebase({ image: top, backing })).rejects.toThrow(/--unsafe/);
  expect(await backingOf(top)).toEqual([base, 'qcow2']);
});

it.each([
  ['with locks', {}],
  ['without locks', { LACUNA_FFI: 'off' }],
])('rebase never puts an image below itself, %s', async (_what, env) => {
  const random = new Random(Random.seed());
  const base = await newImage(random, SIZE);
  const top = await newImage(random, SIZE, '-b', base, '-F', 'qcow2');
  for (const [backing, ...flags] of [[base], [base, '--unsafe'], [top]]) {
    const args = ['rebase', base, '-b', backing, '-F', 'qcow2', ...flags];
    const { code, stderr } = await runCli(args, { env });
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(/own backing file.*ERR_IMAGE_CHAIN/s),
    ]);
  }
  expect(await backingOf(base)).toEqual([undefined, undefined]);
});

it.each([
  ['the image above it', (top: string) => top],
  ['a link to that', (top: string) => linked(top, symlinkSync)],
  ['a hard link to that', (top: string) => linked(top, linkSync)],
  ['an image over that, by a name in JSON', overJson],
  ['JSON that names that', (top: string) => jsonOf(top)],
])('rebase -u makes no circle with %s', async (_what, backing) => {
  const random = new Random(1);
  const base = await newImage(random, MIB);
  const top = await newImage(random, MIB, '-b', base, '-F', 'qcow2');
  const name = await backing(top);
  const { code, stderr } = await runCli(['rebase', base, '-u', '-b', name, '-F', 'qcow2']);
  expect([code, stderr]).toEqual([1, expect.stringMatching(/own backing file.*ERR_IMAGE_CHAIN/s)]);
  expect(await backingOf(base)).toEqual([undefined, undefined]);
});

it('no new image is made over a chain that it is a part of', async () => {
  const random = new Random(1);
  const base = await newImage(random, MIB);
  const top = await newImage(random, MIB, '-b', base, '-F', 'qcow2');
  const before = await shown(top);
  const backing = { filename: top, format: 'qcow2' };
  await expect(createQcow2(base, { size: MIB, backing })).rejects.toMatchObject({
    code: 'ERR_IMAGE_CHAIN',
  });
  const source = await shown(top);
  const flags = ['--mode', 'top', '-B', top, '-F', 'qcow2'];
  const { code, stderr } = await runCli(['copy', ...flags, source, base]);
  expect([code, stderr]).toEqual([1, expect.stringContaining('its own backing file')]);
  await expectShows(top, before, 1);
});

function linked(path: string, link: (from: string, to: string) => void): string {
  const name = join(folder, `link-${images++}.qcow2`);
  link(path, name);
  return name;
}

function jsonOf(filename: string): string {
  return `json:${JSON.stringify({ driver: 'qcow2', file: { driver: 'file', filename } })}`;
}

async function overJson(path: string): Promise<string> {
  const over = join(folder, `disk-${images++}.qcow2`);
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', jsonOf(path), '-F', 'qcow2', over]);
  return over;
}
