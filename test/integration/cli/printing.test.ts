/** Text that an image, a peer or a file name controls, in all that the command prints. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openBitmaps } from '#dist/block/index.js';
import { pattern } from '../../support/fake-device.js';
import { serveHostile } from '../../support/hostile-nbd.js';
import * as wire from '../../support/hostile-nbd-wire.js';
import { run } from '../../support/peers.js';
import { createImage } from '../../support/qemu-images.js';
import { runCli } from '../../support/run-cli.js';
import { runHere } from '../../support/run-here.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

const MiB = 2 ** 20;
let folder: string;
workInNewFolders((entered) => {
  folder = entered;
});

/** Clears the screen in 7 bits and in 8, turns the direction of text, hides, and writes lines that look like ours. */
const EVIL =
  '\x1b[2J\u009b2J\u202egnp.\u2066\u200b\u{e0041}\u2028\rx\nlacuna: forged\nCopied a disk';

/** Whatever a terminal may obey, or nobody can see, but for line breaks. */
const HARMFUL = /(?!\n)[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;

const FORGED = /^(lacuna: forged|Copied a disk$)/m;

function expectHarmless({ stdout, stderr }: { stdout: string; stderr: string }): void {
  for (const text of [stdout, stderr]) {
    expect(text).not.toMatch(HARMFUL);
    expect(text).not.toMatch(FORGED);
  }
}

async function evilImages(): Promise<void> {
  writeFileSync(`${EVIL}.raw`, pattern(MiB));
  await createImage(join(folder, `${EVIL}.qcow2`), MiB, [], []);
  await createImage(join(folder, 'over.qcow2'), MiB, [], ['-b', `./${EVIL}.qcow2`, '-F', 'qcow2']);
  await run('qemu-img', ['snapshot', '-c', EVIL, join(folder, 'over.qcow2')]);
  for (const image of [`${EVIL}.qcow2`, 'over.qcow2']) {
    await using opened = await openBitmaps(image, { writable: true });
    opened.bitmaps.add({ name: EVIL, persistent: true });
    await opened.store();
  }
}

test('names of files, bitmaps, snapshots and backing files are shown with escapes, in one line', async () => {
  await evilImages();
  mkdirSync(join(folder, 'more'));
  const raw = `${EVIL}.raw`;
  const lines: [string[], number, RegExp][] = [
    [['info', raw], 0, /^name +\S*\\u001b\[2J\\u009b2J\\u202e.*\\u200b\\udb40\\udc41\\u2028/m],
    [['info', 'over.qcow2'], 0, /^backing +\S*\\u001b.*\nsnapshot .*\\u001b/m],
    [['map', '--picture', '--width', '9', raw], 0, /data/],
    [['map', '--context', EVIL, raw], 1, /\\u001b/],
    [['digest', raw], 0, /^lacuna1:\S+ {2}\\u001b/],
    [['compare', raw, raw], 0, /Equal/],
    [['bitmap', 'list', 'over.qcow2'], 0, /^\\u001b\[2J.*64 KiB +recording/m],
    [['bitmap', 'dump', 'over.qcow2', `${EVIL}!`], 1, /\\u001b.*ERR_BITMAP_UNKNOWN/],
    [['bitmap', 'add', 'over.qcow2', EVIL], 1, /\\u001b.*ERR_BITMAP_EXISTS/],
    [['bitmap', 'export', 'over.qcow2', EVIL, `${EVIL}.img`], 0, /warning: \\u001b/],
    [['bitmap', 'export', 'over.qcow2', EVIL, `${EVIL}.img`], 1, /\\u001b.*choose another/],
    [['populate', raw, '-o', `${EVIL}.bitmaps`, '--name', EVIL], 0, /dirty in "\\u001b.*\\u001b/],
    [['populate', raw, '-o', `${EVIL}.bitmaps`, '--name', EVIL, '-g', '1M'], 1, /\\u001b/],
    [['bitmap', 'list', `${EVIL}.bitmaps`], 0, /^\\u001b/m],
    [['copy', '--bitmaps', 'over.qcow2', 'flat.qcow2'], 0, /^Bitmaps: \\u001b/m],
    [['copy', '-O', 'qcow2', raw, `more/${EVIL}.raw`], 0, /warning: more\/\\u001b/],
    [['copy', '--digest-file', `${EVIL}.digest`, raw, 'x.raw'], 0, /Digest/],
    [
      ['copy', '--digest-file', raw, raw, 'x.raw'],
      2,
      /\\u001b.*file of its own|file of its own.*\\u001b/,
    ],
    [['copy', '--rate-file', raw, raw, 'x.raw'], 2, /\\u001b.*must hold a rate/],
    [['copy', '-o', EVIL, raw, 'x.qcow2'], 2, /-o \\u001b/],
    [['copy', `--${EVIL}`, raw, 'x.raw'], 2, /unknown option '--\\u001b/],
    [['copy', `--mode=${EVIL}`, raw, 'x.raw'], 2, /'\\u001b/],
    [['copy', '--mode', 'top', `--bitmap=${EVIL}`, raw, 'x.raw'], 2, /NAME=FILE/],
    [[EVIL], 2, /unknown command '\\u001b/],
    [['copy', '--resume', raw, raw, 'x.raw'], 2, /\\u001b/],
    [['copy', raw, `no/${EVIL}`], 1, /\\u001b.*no such folder/],
    [['copy', `driver=file,filename=${raw},${EVIL}=1`, 'x.raw'], 2, /./],
    [['copy', `{"driver":"${EVIL}"}`, 'x.raw'], 2, /./],
    [['serve', raw, '--socket', raw], 1, /\\u001b.*not a socket/],
    [['serve', '--bitmap', `${EVIL}!`, 'over.qcow2', '--socket', 's'], 1, /has no bitmap \\u001b/],
    [['demo', '--folder', EVIL], 1, /\\u001b.*no such folder/],
    [['rebase', '-u', 'over.qcow2', '-b', `${EVIL}!.qcow2`], 2, /-F/],
    [['commit', 'flat.qcow2'], 1, /no backing file/],
    [['commit', 'over.qcow2'], 0, /\\u001b.* holds all of it now\.\nBitmaps .*\\u001b/m],
  ];
  for (const [args, code, shown] of lines) {
    const result = await runHere(args);
    expect([args, result.code, result.stderr + result.stdout]).toEqual([
      args,
      code,
      expect.stringMatching(shown),
    ]);
    expectHarmless(result);
  }
});

test('JSON means what the names are, and stands on a terminal without harm', async () => {
  await evilImages();
  const { stdout: info, ...rest } = await runHere(['info', '--json', 'over.qcow2']);
  expectHarmless({ stdout: info, ...rest });
  expect(JSON.parse(info)).toMatchObject({
    image: {
      chain: [{ name: expect.stringContaining(EVIL) }],
      snapshots: [{ name: EVIL }],
    },
  });
  const list = await runHere(['bitmap', 'list', '--json', 'over.qcow2']);
  expectHarmless(list);
  expect(JSON.parse(list.stdout)).toMatchObject([{ name: EVIL }]);
  const failed = await runHere(['info', '--json', `${EVIL}.no`]);
  expectHarmless(failed);
  expect(JSON.parse(failed.stdout).message).toContain(EVIL);
});

test('names that are not UTF-8 are shown without their bytes', async () => {
  const image = join(folder, 'q.qcow2');
  await createImage(image, MiB);
  await run('qemu-img', ['snapshot', '-c', 'NAMEOFIT', image]);
  const bytes = readFileSync(image);
  Buffer.from([0xff, 0x9b, 0x32, 0x4a, 0xc0, 0x80, 0x1b, 0x63]).copy(
    bytes,
    bytes.indexOf('NAMEOFIT'),
  );
  writeFileSync(image, bytes);
  const result = await runHere(['info', image]);
  expectHarmless(result);
  expect(result.stdout).toMatch(/^snapshot .*\ufffd\ufffd2J\ufffd\ufffd\\u001bc/m);
  expectHarmless(await runHere(['info', '--json', image]));
});

test('what a server says is shown with escapes', async () => {
  const server = await serveHostile(async (connection) => {
    connection.send(wire.greeting());
    await connection.take(4);
    for (;;) {
      connection.send(wire.optionError(await connection.option(), 0x80000006, EVIL));
    }
  });
  const result = await runHere(['info', `nbd+unix:///x?socket=${server.path}`]);
  expect([result.code, result.stderr]).toEqual([
    1,
    expect.stringMatching(/no such export.*\\u202e/),
  ]);
  expectHarmless(result);
});

test('the built command prints names with escapes, and not only the command inside a test', async () => {
  writeFileSync(join(folder, `${EVIL}.raw`), pattern(4096));
  for (const args of [
    ['info', `${EVIL}.raw`],
    ['info', '--json', `${EVIL}.raw`],
    ['copy', `${EVIL}.no`, 'x'],
    ['copy', `--${EVIL}`],
  ]) {
    const result = await runCli(args, { cwd: folder });
    expect(result.stdout + result.stderr).toContain('\\u001b');
    expectHarmless(result);
  }
});
