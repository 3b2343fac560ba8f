/** Internal snapshots that show something of a backing file: nobody changes them without a word. */
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { commit, openBitmaps, openDevice, rebase } from 'lacuna';
import { beforeEach, describe, expect, it } from 'vitest';
import { run } from '../../support/peers.js';
import { createImage, qemuBytes, qemuIo } from '../../support/qemu-images.js';
import { runCli } from '../../support/run-cli.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const MIB = 2 ** 20;
const folderOfAll = temporaryFolder();
let folder: string;
let base: string;
let other: string;
let top: string;

/** A top with a snapshot "early" that shows all of its base, and with a cluster of its own since. */
beforeEach(async () => {
  folder = mkdtempSync(join(folderOfAll, 'test-'));
  [base, other, top] = ['base', 'other', 'top'].map((name) => join(folder, `${name}.qcow2`));
  await createImage(base, MIB);
  await qemuIo(base, ['write -P 1 0 1M']);
  await createImage(other, MIB);
  await createImage(top, MIB, [], ['-b', base, '-F', 'qcow2']);
  await run('qemu-img', ['snapshot', '-c', 'early', top]);
  await qemuIo(top, ['write -P 2 0 64k']);
});

const early = () => qemuBytes(top, ['-l', 'early']);
const backingOf = async () =>
  JSON.parse(await run('qemu-img', ['info', '--output=json', top]))['backing-filename'];

describe('an image with a snapshot that would change is refused, by name', () => {
  it.each([
    ['rebase to an image that shows something else', () => ['rebase', '-b', other, '-F', 'qcow2']],
    ['rebase to nothing', () => ['rebase', '-b', '']],
    ['rebase -u', () => ['rebase', '-u', '-b', other, '-F', 'qcow2']],
    ['rebase -u to nothing', () => ['rebase', '-u', '-b', '']],
    ['commit', () => ['commit']],
  ])('%s', async (_what, args) => {
    const before = await early();
    const [command, ...flags] = args();
    const { code, stderr } = await runCli([command, top, ...flags]);
    expect([code, stderr]).toEqual([1, expect.stringMatching(/"early" \(1\).*ERR_IMAGE_CHAIN/)]);
    expect((await early()).equals(before)).toBe(true);
    expect(await backingOf()).toBe(base);
    expect((await qemuBytes(base)).equals(Buffer.alloc(MIB, 1))).toBe(true);
  });

  it('but snapshots that would stay the same are not named', async () => {
    await qemuIo(top, ['write -P 3 0 1M']);
    await run('qemu-img', ['snapshot', '-c', 'whole', top]);
    await expect(rebase({ image: top, backing: null })).rejects.toThrow(
      /^The internal snapshots "early" \(1\) of /,
    );
  });
});

describe('an image with a snapshot that stays the same is', () => {
  it('rebased to an image that shows the same', async () => {
    const before = await early();
    await run('qemu-img', ['convert', '-O', 'qcow2', base, other]);
    expect(await runCli(['rebase', top, '-b', other, '-F', 'qcow2'])).toMatchObject({ code: 0 });
    expect(await backingOf()).toBe(other);
    expect((await early()).equals(before)).toBe(true);
  });

  it('rebased where the snapshot holds all itself', async () => {
    await qemuIo(top, ['write -P 3 0 1M']);
    await run('qemu-img', ['snapshot', '-d', 'early', top]);
    await run('qemu-img', ['snapshot', '-c', 'early', top]);
    const before = await early();
    await rebase({ image: top, backing: null, unsafe: true });
    expect((await early()).equals(before)).toBe(true);
  });

  it('committed where the snapshot holds what is put into the base', async () => {
    await run('qemu-img', ['snapshot', '-c', 'late', top]);
    await run('qemu-img', ['snapshot', '-d', 'early', top]);
    const before = await qemuBytes(top, ['-l', 'late']);
    await run('qemu-img', ['snapshot', '-c', 'of the base', base]);
    const below = await qemuBytes(base, ['-l', 'of the base']);
    await commit({ top });
    expect((await qemuBytes(top, ['-l', 'late'])).equals(before)).toBe(true);
    expect((await qemuBytes(base, ['-l', 'of the base'])).equals(below)).toBe(true);
  });

  it('given another name for its base, where that is said of the snapshots too', async () => {
    const flags = ['-u', '-b', './base.qcow2', '-F', 'qcow2'];
    expect(await runCli(['rebase', top, ...flags])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('--snapshots-too'),
    });
    expect(await runCli(['rebase', top, ...flags, '--snapshots-too'])).toMatchObject({ code: 0 });
    expect(await backingOf()).toBe('./base.qcow2');
    const safe = ['rebase', top, '-b', base, '-F', 'qcow2', '--snapshots-too'];
    expect(await runCli(safe)).toMatchObject({ code: 2 });
  });
});

it('a snapshot of an image without a base is not given one', async () => {
  await createImage(other, MIB);
  await run('qemu-img', ['snapshot', '-c', 'empty', other]);
  await expect(
    rebase({ image: other, backing: { filename: base, format: 'qcow2' } }),
  ).rejects.toThrow(/"empty" \(1\)/);
});

describe('an image that is named with a snapshot', () => {
  const named = () =>
    ({ driver: 'qcow2', file: { driver: 'file', filename: top }, snapshot: 'early' }) as const;
  const refusal = {
    code: 'ERR_DEVICE_UNSUPPORTED',
    message: expect.stringContaining('snapshot "early"'),
  };

  it('is neither committed nor rebased', async () => {
    await run('qemu-img', ['bitmap', '--add', top, 'b0']);
    const before = await qemuBytes(base);
    await expect(commit({ top: named() })).rejects.toMatchObject(refusal);
    await expect(rebase({ image: named(), backing: null })).rejects.toMatchObject(refusal);
    await expect(
      rebase({ image: named(), backing: null, unsafe: true, snapshotsToo: true }),
    ).rejects.toMatchObject(refusal);
    expect((await qemuBytes(base)).equals(before)).toBe(true);
    expect(JSON.parse(await run('qemu-img', ['info', '--output=json', base]))).not.toHaveProperty(
      'format-specific.data.bitmaps',
    );
  });

  it('is not opened to be written, and has no bitmaps', async () => {
    await expect(openDevice(named(), { writable: true })).rejects.toMatchObject(refusal);
    await expect(openBitmaps(named())).rejects.toMatchObject(refusal);
  });

  it.each([
    ['a snapshot', () => JSON.stringify(named()), /snapshot "early"/],
    [
      'what is read-only by its description',
      () => `driver=file,filename=${base},read-only=on`,
      /read-only.*leave out --writable/,
    ],
  ])('serve --writable refuses %s', async (_what, source, message) => {
    const { code, stderr, stdout } = await runCli([
      'serve',
      source(),
      '--writable',
      '--socket',
      join(folder, 'sock'),
    ]);
    expect([code, stdout, stderr]).toEqual([1, '', expect.stringMatching(message)]);
    expect(stderr).toContain('ERR_DEVICE_UNSUPPORTED');
  });
});
