/** What the command says when something is wrong: what happened, to what, and what to do next, all of it true. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { copy } from 'lacuna';
import { beforeEach, describe, expect, test } from 'vitest';
import { openDevice } from '#dist/block/index.js';
import { DIGEST_BLOCK } from '#dist/copy/digest-tree.js';
import { pattern } from '../support/fake-device.js';
import { createImage } from '../support/qemu-images.js';
import { type CliResult, runCli } from '../support/run-cli.js';
import { temporaryFolder } from '../support/temporary-folder.js';

const MiB = 2 ** 20;
const top = temporaryFolder();
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(top, 'test-'));
});

/** An image that is marked as corrupt. */
async function corrupt(name: string, options: string[] = [], more: string[] = []) {
  const path = join(folder, name);
  await createImage(path, MiB, options, more);
  const bytes = readFileSync(path);
  bytes[79] |= 2;
  writeFileSync(path, bytes);
}

const lacuna = (...args: string[]): Promise<CliResult> => runCli(args, { cwd: folder });

describe('a resume file', () => {
  test('of a copy to another target is refused for that, and not advised again', async () => {
    writeFileSync(join(folder, 'd.raw'), pattern(MiB));
    const abort = new AbortController();
    await using source = await openDevice(join(folder, 'd.raw'));
    const job = copy({
      source,
      target: join(folder, 'x.raw'),
      resume: join(folder, 'r'),
      rate: MiB / 2,
      threads: 0,
      signal: abort.signal,
    });
    setTimeout(() => abort.abort(), 300);
    await expect(job).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    const { code, stderr } = await lacuna('copy', '--resume', 'r', 'd.raw', 'y.raw');
    expect(code).toBe(1);
    expect(stderr).toMatch(/the target was .*x\.raw when the copy began, and is .*y\.raw now/);
    expect(stderr).not.toContain('run the same command again');
  });
});

describe('an image that is marked as corrupt', () => {
  test('is read by every command with one warning', async () => {
    await corrupt('bad.qcow2');
    await createImage(join(folder, 'over.qcow2'), MiB, [], ['-b', 'bad.qcow2', '-F', 'qcow2']);
    writeFileSync(join(folder, 'null.raw'), Buffer.alloc(MiB));
    const commands = [
      ['copy', '--verify', 'bad.qcow2', 'x.raw'],
      ['copy', '--dry-run', 'bad.qcow2'],
      ['info', 'over.qcow2'],
      ['map', 'bad.qcow2'],
      ['compare', 'bad.qcow2', 'null.raw'],
    ];
    const results = await Promise.all(commands.map((args) => lacuna(...args)));
    for (const { code, stderr } of results) {
      expect(code).toBe(0);
      expect(stderr).toMatch(/^lacuna: warning: \S*bad.qcow2 is marked as corrupt.*\n$/);
    }
  });

  test('is not written', async () => {
    await corrupt('bad.qcow2');
    writeFileSync(join(folder, 'd.raw'), pattern(MiB));
    await createImage(join(folder, 'over.qcow2'), MiB, [], ['-b', 'bad.qcow2', '-F', 'qcow2']);
    const before = readFileSync(join(folder, 'bad.qcow2'));
    const results = await Promise.all([
      lacuna('bitmap', 'add', 'bad.qcow2', 'b0'),
      lacuna('commit', 'over.qcow2'),
      lacuna('rebase', '-b', 'd.raw', '-F', 'raw', '--unsafe', 'bad.qcow2'),
    ]);
    for (const { code, stderr } of results) {
      expect([code, stderr]).toEqual([1, expect.stringContaining('corrupt')]);
    }
    expect(readFileSync(join(folder, 'bad.qcow2')).equals(before)).toBe(true);
  });
});

describe('a chain that leads into another folder', () => {
  /** `over` in a folder of its own, over `middle` and `base` in two others. */
  async function chain(): Promise<void> {
    for (const name of ['a', 'b', 'c']) mkdirSync(join(folder, name));
    writeFileSync(join(folder, 'a/base.raw'), pattern(MiB));
    const over = (file: string, backing: string, format: string) =>
      createImage(join(folder, file), MiB, [], ['-b', backing, '-F', format]);
    await over('b/middle.qcow2', '../a/base.raw', 'raw');
    await over('c/over.qcow2', '../b/middle.qcow2', 'qcow2');
  }
  const folders = ['--backing-folder', 'a', '--backing-folder', 'b'];
  const image = 'c/over.qcow2';

  test('is refused with the option that allows it', async () => {
    await chain();
    const { code, stderr } = await lacuna('info', image);
    expect([code, stderr]).toEqual([1, expect.stringContaining('--backing-folder')]);
  });

  test('is followed by every command that is told the folders', async () => {
    await chain();
    writeFileSync(join(folder, 'd.raw'), pattern(MiB));
    const results = await Promise.all([
      lacuna('copy', ...folders, image, 'x.raw'),
      lacuna(
        'copy',
        ...folders,
        '--mode',
        'top',
        '-B',
        '../b/middle.qcow2',
        '-F',
        'qcow2',
        image,
        'c/new.qcow2',
      ),
      lacuna('copy', ...folders, '--dry-run', image),
      lacuna('info', ...folders, image),
      lacuna('map', ...folders, image),
      lacuna('compare', ...folders, 'd.raw', image),
      lacuna('digest', ...folders, image),
      lacuna('populate', ...folders, image, '-o', 'x.bitmaps'),
    ]);
    for (const { code, stderr } of results) expect([code, stderr]).toEqual([0, '']);
    expect(readFileSync(join(folder, 'x.raw')).equals(pattern(MiB))).toBe(true);
    const commit = await lacuna('commit', ...folders, image);
    expect([commit.code, commit.stderr]).toEqual([0, '']);
    const rebase = await lacuna('rebase', ...folders, image, '-b', '../a/base.raw', '-F', 'raw');
    expect([rebase.code, rebase.stderr]).toEqual([0, '']);
  });
});

test('how requests are made again reaches the engine', async () => {
  writeFileSync(join(folder, 'd.raw'), pattern(4096));
  const tooMuch = '999999999';
  const [wait, reconnect] = await Promise.all([
    lacuna('copy', '--backoff', tooMuch, 'd.raw', 'x.raw'),
    lacuna('copy', '--reconnect', tooMuch, 'd.raw', 'x.raw'),
  ]);
  expect([wait.code, wait.stderr]).toEqual([2, expect.stringContaining('retry.backoffMs')]);
  const words = expect.stringContaining('retry.reconnectSeconds');
  expect([reconnect.code, reconnect.stderr]).toEqual([2, words]);
});

describe('a digest in a file', () => {
  test('is stored when the copy is whole, and found again or not', async () => {
    writeFileSync(join(folder, 'd.raw'), pattern(MiB));
    const copied = await lacuna('copy', '--digest-file', 'd.digest', 'd.raw', 'x.raw');
    expect(copied.code).toBe(0);
    const stored = JSON.parse(readFileSync(join(folder, 'd.digest'), 'utf8'));
    expect(stored).toEqual({
      digest: /Digest: (\S+)/.exec(copied.stdout)?.[1],
      size: MiB,
      hash: 'sha256',
      blockSize: DIGEST_BLOCK,
    });
    const { stdout } = await lacuna('digest', '--json', 'd.raw');
    expect(JSON.parse(stdout).digest).toBe(stored.digest);
    writeFileSync(join(folder, 'printed'), stdout);
    writeFileSync(join(folder, 'other.raw'), pattern(MiB, 3));
    writeFileSync(join(folder, 'short.raw'), pattern(4096));
    const [same, printed, different, short, json] = await Promise.all([
      lacuna('digest', '--check', 'd.digest', 'x.raw'),
      lacuna('digest', '--check', 'printed', 'x.raw'),
      lacuna('digest', '--check', 'd.digest', 'other.raw'),
      lacuna('digest', '--check', 'd.digest', 'short.raw'),
      lacuna('digest', '--json', '--check', 'd.digest', 'other.raw'),
    ]);
    for (const { code } of [same, printed]) expect(code).toBe(0);
    expect([different.code, different.stdout]).toEqual([1, expect.stringMatching(/^Different: /)]);
    expect([short.code, short.stdout]).toEqual([1, expect.stringContaining('4096 bytes, not')]);
    expect(JSON.parse(json.stdout)).toMatchObject({ same: false, wanted: { size: MiB } });
  });

  test('never takes the place of anything else, and what is none is no digest', async () => {
    const [disk, target] = [join(folder, 'd.raw'), join(folder, 'x.raw')];
    writeFileSync(disk, pattern(MiB));
    const overSource = await lacuna('copy', '--digest-file', 'd.raw', 'd.raw', 'x.raw');
    expect([overSource.code, existsSync(target)]).toEqual([1, false]);
    const overTarget = await lacuna('copy', '--digest-file', 'x.raw', 'd.raw', 'x.raw');
    expect([overTarget.code, overTarget.stderr]).toEqual([
      1,
      expect.stringContaining('holds no digest'),
    ]);
    for (const path of [disk, target]) expect(readFileSync(path).equals(pattern(MiB))).toBe(true);
    const [check, nowhere] = await Promise.all([
      lacuna('digest', '--check', 'd.raw', 'd.raw'),
      lacuna('copy', '--digest-file', 'nowhere/d', 'd.raw', 'y.raw'),
    ]);
    expect([check.code, check.stderr]).toEqual([2, expect.stringContaining('holds no digest')]);
    expect([nowhere.code, existsSync(join(folder, 'y.raw'))]).toEqual([1, false]);
  });
});
