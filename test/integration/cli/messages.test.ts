/** What the command says when something is wrong: what happened, to what, and what to do next, all of it true. */

import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { copy } from 'lacuna';
import { describe, expect, test } from 'vitest';
import { openDevice } from '#dist/block/index.js';
import { DIGEST_BLOCK } from '#dist/copy/move/digest-tree.js';
import { describeRefusal } from '#dist/util/refusal.js';
import { pattern } from '../../support/fake-device.js';
import { attachLoopDevice } from '../../support/loop-device.js';
import { run, usePeers } from '../../support/peers.js';
import { createImage } from '../../support/qemu-images.js';
import type { CliResult } from '../../support/run-cli.js';
import { runHere } from '../../support/run-here.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

const MiB = 2 ** 20;
const peers = usePeers();
let folder: string;
workInNewFolders((entered) => {
  folder = entered;
});

/** An image that is marked as corrupt. */
async function corrupt(name: string, options: string[] = [], more: string[] = []) {
  const path = join(folder, name);
  await createImage(path, MiB, options, more);
  const bytes = readFileSync(path);
  bytes[79] |= 2;
  writeFileSync(path, bytes);
}

const lacuna = (...args: string[]): Promise<CliResult> => runHere(args);

/** Several, one after the other: they share this process, and its locks. */
async function inTurn(lines: readonly (readonly string[])[]): Promise<CliResult[]> {
  const results: CliResult[] = [];
  for (const args of lines) results.push(await runHere(args));
  return results;
}

describe('a resume file', () => {
  test('of a copy to another target is refused for that, and not advised again', async () => {
    writeFileSync(join(folder, 'd.raw'), pattern(MiB));
    const abort = new AbortController();
    await using source = await openDevice(join(folder, 'd.raw'));
    const job = copy({
      source,
      target: join(folder, 'x.raw'),
      resume: join(folder, 'r'),
      // So slow that it does not end before it is given up.
      rate: MiB / 64,
      threads: 0,
      signal: abort.signal,
    });
    const ended = expect(job).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await expect.poll(() => job.resumable).toBeDefined();
    abort.abort();
    await ended;
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
    const results = await inTurn(commands);
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
    const results = await inTurn([
      ['bitmap', 'add', 'bad.qcow2', 'b0'],
      ['commit', 'over.qcow2'],
      ['rebase', '-b', 'd.raw', '-F', 'raw', '--unsafe', 'bad.qcow2'],
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
    const results = await inTurn([
      ['copy', ...folders, image, 'x.raw'],
      [
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
      ],
      ['copy', ...folders, '--dry-run', image],
      ['info', ...folders, image],
      ['map', ...folders, image],
      ['compare', ...folders, 'd.raw', image],
      ['digest', ...folders, image],
      ['populate', ...folders, image, '-o', 'x.bitmaps'],
    ]);
    for (const { code, stderr } of results) expect([code, stderr]).toEqual([0, '']);
    expect(readFileSync(join(folder, 'x.raw')).equals(pattern(MiB))).toBe(true);
    const commit = await lacuna('commit', ...folders, image);
    expect([commit.code, commit.stderr]).toEqual([0, '']);
    const rebase = await lacuna('rebase', ...folders, image, '-b', '../a/base.raw', '-F', 'raw');
    expect([rebase.code, rebase.stderr]).toEqual([0, '']);
  });
});

test('--backoff and --reconnect reach the engine', async () => {
  writeFileSync(join(folder, 'd.raw'), pattern(4096));
  const tooMuch = '999999999';
  const [wait, reconnect] = await inTurn([
    ['copy', '--backoff', tooMuch, 'd.raw', 'x.raw'],
    ['copy', '--reconnect', tooMuch, 'd.raw', 'x.raw'],
  ]);
  expect([wait.code, wait.stderr]).toEqual([2, expect.stringContaining('--backoff')]);
  const words = expect.stringContaining('--reconnect');
  expect([reconnect.code, reconnect.stderr]).toEqual([2, words]);
});

describe('a digest in a file', () => {
  test('is stored when the copy is whole, and tells equal disks from different ones', async () => {
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
    const [same, printed, different, short, json] = await inTurn([
      ['digest', '--check', 'd.digest', 'x.raw'],
      ['digest', '--check', 'printed', 'x.raw'],
      ['digest', '--check', 'd.digest', 'other.raw'],
      ['digest', '--check', 'd.digest', 'short.raw'],
      ['digest', '--json', '--check', 'd.digest', 'other.raw'],
    ]);
    for (const { code } of [same, printed]) expect(code).toBe(0);
    expect([different.code, different.stdout]).toEqual([1, expect.stringMatching(/^Different: /)]);
    expect([short.code, short.stdout]).toEqual([1, expect.stringContaining('4096 bytes, not')]);
    expect(JSON.parse(json.stdout)).toMatchObject({ same: false, wanted: { size: MiB } });
  });

  test('never replaces a file of another kind, which is not taken for a digest either', async () => {
    const [disk, target] = [join(folder, 'd.raw'), join(folder, 'x.raw')];
    writeFileSync(disk, pattern(MiB));
    const overSource = await lacuna('copy', '--digest-file', 'd.raw', 'd.raw', 'x.raw');
    expect([overSource.code, existsSync(target)]).toEqual([2, false]);
    const overTarget = await lacuna('copy', '--digest-file', 'x.raw', 'd.raw', 'x.raw');
    expect([overTarget.code, overTarget.stderr]).toEqual([
      2,
      expect.stringContaining('a file of its own'),
    ]);
    const other = join(folder, 'other.raw');
    writeFileSync(other, pattern(MiB));
    const overOther = await lacuna('copy', '--digest-file', 'other.raw', 'd.raw', 'x.raw');
    expect([overOther.code, overOther.stderr]).toEqual([
      1,
      expect.stringContaining('holds no digest'),
    ]);
    expect(existsSync(target)).toBe(false);
    for (const path of [disk, other]) expect(readFileSync(path).equals(pattern(MiB))).toBe(true);
    const [check, nowhere] = await inTurn([
      ['digest', '--check', 'd.raw', 'd.raw'],
      ['copy', '--digest-file', 'nowhere/d', 'd.raw', 'y.raw'],
    ]);
    expect([check.code, check.stderr]).toEqual([2, expect.stringContaining('holds no digest')]);
    expect([nowhere.code, existsSync(join(folder, 'y.raw'))]).toEqual([1, false]);
  });
});

/** Marks a bitmap of an image as in use, as after a crash. */
function spoilBitmap(path: string, name: string): void {
  const bytes = readFileSync(path);
  const entry = bytes.lastIndexOf(name) - 24;
  bytes[entry + 15] |= 1;
  writeFileSync(path, bytes);
}

test('messages say what to do next, by the flags and commands for it', async ({
  onTestFinished,
}) => {
  mkdirSync(join(folder, 'dir'));
  writeFileSync(join(folder, 'd.raw'), pattern(4096));
  await createImage(join(folder, 'q.qcow2'), MiB);
  await createImage(join(folder, 'over.qcow2'), MiB, [], ['-b', 'q.qcow2', '-F', 'qcow2']);
  await lacuna('bitmap', 'add', 'q.qcow2', 'b0');
  await lacuna('bitmap', 'add', 'q.qcow2', 'old');
  spoilBitmap('q.qcow2', 'old');
  writeFileSync('y.raw', Buffer.alloc(MiB));
  await run('mkfifo', ['fifo']);
  const listener = createServer().listen('s.sock');
  onTestFinished(() => void listener.close());
  await once(listener, 'listening');
  const cases: [string, RegExp][] = [
    ['copy d.raw no/x.raw', /no such folder: make it/],
    ['bitmap export q.qcow2 b0 no/x.qcow2', /no such folder: make it/],
    ['bitmap export q.qcow2 b0 q.qcow2', /q.qcow2: .*choose another name/],
    ['populate -o no/x d.raw', /no such folder: make it/],
    ['copy --resume no/r d.raw x.raw', /no such folder: make it/],
    ['copy --mode top q.qcow2 x.raw', /x.raw is not there.*make a full copy first/],
    ['copy --mode top over.qcow2 q.qcow2', /q.qcow2 is below the source.*lacuna commit/],
    ['rebase -b x.vmdk -F vmdk over.qcow2', /format vmdk cannot be read here.*--unsafe/],
    ['bitmap remove q.qcow2 zz', /no bitmap 'zz' \(there are 'b0', 'old'\)/],
    ['copy -o cluster_size=3 d.raw x.qcow2', /lacuna: cluster_size must be/],
    ['copy --request-size 3 d.raw x.raw', /lacuna: --request-size must be/],
    ['copy d.raw c.vmdk', /neither read nor made.*raw or qcow2/],
    ['serve --bitmap zz q.qcow2 --socket s', /no bitmap zz \(b0\).*zz=FILE/],
    ['commit q.qcow2', /no backing file .*lacuna rebase/],
    ['serve d.raw --tls-cert no --tls-key no', /--tls-cert, no: .*check the path/],
    ['serve d.raw --socket no/s', /there is no folder no: make it/],
    ['copy d.raw d.raw/x', /d.raw\/x: part of the path is not a folder/],
    ['copy --resume dir d.raw x.raw', /resume file dir: it is a folder: name a file/],
    ['copy --resume /dev/null d.raw x.raw', /not a regular file.*name another/],
    ['copy --resume q.qcow2 d.raw x.raw', /not a resume file.*else name another/],
    ['copy --rate-file dir d.raw x.raw', /--rate-file, dir: .*name a file/],
    ['copy --digest-file dir d.raw x.raw', /digest in dir: .*name a file/],
    ['copy --digest-file no/d d.raw x.raw', /digest in no\/d: .*make it/],
    ['digest --check no d.raw', /--check, no: .*check the path/],
    ['populate -o dir d.raw', /bitmaps dir: it is a folder: name a file/],
    ['bitmap list -f bitmaps dir', /bitmaps dir: it is a folder: name a file/],
    ['bitmap list -f bitmaps /dev/null', /not a regular file.*name another/],
    ['bitmap dump over.qcow2 b0', /no bitmap 'b0', nor any other: add it/],
    ['bitmap add x.bitmaps b0', /x.bitmaps is a file of bitmaps.*lacuna populate/],
    ['bitmap add -f bitmaps x b0', /x is a file of bitmaps.*lacuna populate/],
    ['bitmap merge -F qcow2 q.qcow2 b0 b1', /-F .*name that with -b/],
    ['copy -o cluster_size d.raw x.qcow2', /-o cluster_size: say its value/],
    ['copy -o cluster_size=x d.raw x.qcow2', /-o cluster_size=x: "x" is not a size/],
    ['copy -o refcount_bits=x d.raw x.qcow2', /-o refcount_bits=x: it is one of 1, 2/],
    ['info -f qcow2 d.raw', /d.raw is not a qcow2 image.*-f raw/],
    [
      'copy --preallocation metadata d.raw x.raw',
      /must be one of off, falloc, full for a raw file/,
    ],
    ['commit -f raw over.qcow2', /no qcow2 file.*-f qcow2/],
    ['rebase -f raw -b q.qcow2 -F qcow2 over.qcow2', /no qcow2 file.*-f qcow2/],
    ['demo --size 1M', /--size must be 64 MiB or more/],
    ['demo --folder d.raw', /d.raw: .*not a folder/],
    ['demo --folder no', /no: there is no such folder/],
    ['info s.sock', /it is a socket: .* is nbd\+unix:\/\/\/\?socket=\/\S*s\.sock /],
    ['copy d.raw s.sock', /it is a socket: .* is nbd\+unix:/],
    ['copy /dev/null x.raw', /null: is one that reads as zero/],
    ['copy d.raw /dev/null', /null: is one that .* forgets what is written/],
    ['compare d.raw /dev/zero', /null: is one that reads as zero/],
    ['copy fifo x.raw', /stream, not a disk: copy takes - for standard input/],
    ['copy d.raw fifo', /stream, not a disk: .* - .* for standard output as the target/],
    ['info -', /- is standard input .*a file of this name is \.\/-/],
    ['compare - d.raw', /- is standard input/],
    ['serve - --socket s', /- is standard input/],
    ['bitmap list -', /- is standard input/],
    [
      'copy --context qemu:dirty-bitmap:old q.qcow2 y.raw',
      /'old' of \S+ is inconsistent: .*ERR_BITMAP_INCONS/,
    ],
    ['map --context qemu:dirty-bitmap:old q.qcow2', /'old' of \S+ is inconsistent: .*add it again/],
    ['serve --bitmap old q.qcow2 --socket s', /'old' of \S+ is inconsistent/],
    ['map --context qemu:dirty-bitmap:zz q.qcow2', /no metadata context .* it has: base:alloc.*b0/],
  ];
  const told = await inTurn(cases.map(([line]) => line.split(' ')));
  for (const [i, { code, stderr }] of told.entries()) {
    expect([cases[i][0], code === 1 || code === 2]).toEqual([cases[i][0], true]);
    expect(stderr).toMatch(cases[i][1]);
    // One code: what the system's own stands for is said in words.
    const codes = stderr.replace(/: listen E\w+/, '').match(/\bE[A-Z0-9_]{4,}\b/g) ?? [];
    expect([stderr, codes.length]).toEqual([stderr, stderr.includes('ERR_') ? 1 : 0]);
  }
});

test('a bitmap that cannot be read, or is of another disk, is not said to be missing', async () => {
  await createImage(join(folder, 'q.qcow2'), MiB);
  await lacuna('bitmap', 'add', 'q.qcow2', 'b0');
  await run('qemu-img', ['snapshot', '-c', 'before', 'q.qcow2']);
  const map = ['map', '--context', 'qemu:dirty-bitmap:b0'];
  const at = 'driver=qcow2,file.driver=file,file.filename=q.qcow2,snapshot=before';
  expect((await lacuna(...map, at)).stderr).toMatch(/'b0' .*as it is now, not of .*"before"/);
  const bytes = readFileSync('q.qcow2');
  // The directory's entry of the bitmap: the byte that holds its type.
  bytes[bytes.lastIndexOf('b0') - 24 + 16] = 77;
  writeFileSync('q.qcow2', bytes);
  const { code, stderr } = await lacuna(...map, 'q.qcow2');
  expect([code, stderr]).toEqual([1, expect.stringMatching(/bitmaps of \S+ cannot be read: /)]);
});

test('a block device that cannot be written is said to be read-only, and not to be sealed', async ({
  onTestFinished,
}) => {
  expect(describeRefusal('Cannot write /dev/x', 'EPERM', { isBlock: true })).toMatch(
    /is read-only/,
  );
  expect(describeRefusal('Cannot write x', 'EPERM')).toMatch(/sealed or immutable/);
  const device = attachLoopDevice(MiB, 512);
  if (device === undefined) return;
  onTestFinished(() => device.detach());
  // The next user of the device would find it read-only, too.
  onTestFinished(async () => void (await run('blockdev', ['--setrw', device.path])));
  await run('blockdev', ['--setro', device.path]);
  writeFileSync('d.raw', pattern(MiB));
  const { code, stderr } = await lacuna('copy', 'd.raw', device.path);
  expect([code, stderr]).toEqual([1, expect.stringMatching(/read-only/)]);
});

test('commit and populate show their progress on a terminal', async () => {
  await createImage(join(folder, 'base.qcow2'), MiB);
  await createImage(join(folder, 'over.qcow2'), MiB, [], ['-b', 'base.qcow2', '-F', 'qcow2']);
  for (const args of [
    ['commit', 'over.qcow2'],
    ['populate', 'over.qcow2', '-o', 'x.bitmaps'],
  ]) {
    let shown = '';
    const terminal = {
      write(text: string | Uint8Array) {
        shown += text;
        return true;
      },
    };
    const { code } = await runHere(args, { terminal });
    expect(code).toBe(0);
    expect(shown).toMatch(args[0] === 'commit' ? /Committing/ : /Looking .*100 %/);
  }
});

describe('copy --json', () => {
  const last = (text: string) => JSON.parse(text.trimEnd().split('\n').at(-1) as string);

  test('ends with a document that tells the failure', async () => {
    const { uri } = await peers.nbdkit([
      '--filter=error',
      'pattern',
      '1M',
      'error-pread-rate=100%',
    ]);
    const { code, stdout, stderr } = await lacuna('copy', '--json', uri, 'x.raw');
    expect([code, stderr]).toEqual([1, expect.stringContaining('(ERR_NBD_REMOTE)')]);
    expect(last(stdout)).toMatchObject({
      type: 'error',
      code: 'ERR_NBD_REMOTE',
      errno: 'EIO',
      message: expect.stringContaining('read'),
    });
    const [dry, misuse] = await inTurn([
      ['copy', '--json', '--dry-run', 'nofile'],
      ['copy', '--json', '--request-size', '3', uri, 'x.raw'],
    ]);
    expect(last(dry.stdout)).toMatchObject({ type: 'error', code: 'ERR_DEVICE_OPEN' });
    expect(last(misuse.stdout)).toMatchObject({
      type: 'error',
      message: expect.stringContaining('--request-size'),
    });
    expect(misuse.code).toBe(2);
  });
});

test.each([
  'map no',
  'info no',
  'compare no no',
  'digest no',
  'populate no -o x.bitmaps',
  'serve no --socket s',
  'bitmap list no.qcow2',
  'bitmap dump no.qcow2 b0',
  'commit no.qcow2',
  'rebase no.qcow2 -b d.raw -F raw',
  'copy no x.raw',
  'copy - no/x.raw',
])('lacuna %s --json tells its failure in a JSON document', async (line) => {
  const { code, stdout, stderr } = await lacuna(...line.split(' '), '--json');
  expect([code, stderr]).toEqual([
    line.startsWith('compare') ? 2 : 1,
    expect.stringContaining('(ERR_DEVICE_OPEN)'),
  ]);
  const told = JSON.parse(stdout.trimEnd().split('\n').at(-1) as string);
  expect(told).toMatchObject({ type: 'error', code: 'ERR_DEVICE_OPEN', errno: 'ENOENT' });
  const plain = await lacuna(...line.split(' '));
  expect(plain.stdout).toBe('');
});

test('map does not print a second JSON document after an array that it has begun', async () => {
  const { uri } = await peers.nbdkit([
    'eval',
    'get_size=echo 2M',
    'pread=exit 1',
    'can_extents=exit 0',
    'extents=[ $4 -lt 1048576 ] && echo "0 512K hole,zero" && echo "512K 512K"',
  ]);
  const { code, stdout, stderr } = await lacuna('map', '--json', uri);
  expect([code, stderr]).toEqual([1, expect.stringContaining('ERR_NBD_REMOTE')]);
  expect(stdout).toMatch(/^\[\{"start":0,[^}]*\}$/);
});

test('a copy tells as text how many requests, how much time and how much memory it took', async () => {
  writeFileSync(join(folder, 'd.raw'), pattern(MiB));
  const { stdout } = await lacuna('copy', '--rate', '700K', 'd.raw', 'x.raw');
  const rates = /from [\d.]+ (?:[KM]i)?B\/s to [\d.]+ (?:[KM]i)?B\/s/.source;
  const effort = new RegExp(
    `It took \\d+ requests?.*, ${rates}, .* to plan, and .*iB of memory at most`,
  );
  expect(stdout).toMatch(effort);
});

describe('a file of bitmaps', () => {
  /** A disk with data in its middle, a bitmap of that, and the file that keeps it. */
  async function populated(): Promise<void> {
    const bytes = Buffer.alloc(MiB);
    bytes.set(pattern(64 * 1024), 512 * 1024);
    writeFileSync(join(folder, 'd.raw'), bytes);
    await lacuna('copy', '--detect-zeroes', 'unmap', 'd.raw', 'sparse.raw');
    await lacuna('populate', '-g', '64K', 'sparse.raw', '-o', 'p.bitmaps');
  }

  test('can be listed, dumped and exported, and tells a copy what to move', async () => {
    await populated();
    writeFileSync(join(folder, 'x.raw'), Buffer.alloc(MiB, 1));
    const [list, dump, named, exported, plan, copied, refused] = await inTurn([
      ['bitmap', 'list', '--json', 'p.bitmaps'],
      ['bitmap', 'dump', 'p.bitmaps', 'allocated'],
      ['bitmap', 'dump', '-f', 'bitmaps', './p.bitmaps', 'zz'],
      ['bitmap', 'export', 'p.bitmaps', 'allocated', 'bits.qcow2'],
      ['copy', '--json', '--dry-run', '--bitmap', 'allocated=p.bitmaps', 'd.raw'],
      ['copy', '--bitmap', 'allocated=p.bitmaps', 'd.raw', 'x.raw'],
      ['copy', '--bitmap', 'allocated', 'd.raw', 'x.raw'],
    ]);
    expect(JSON.parse(list.stdout)).toEqual([
      {
        name: 'allocated',
        granularity: 64 * 1024,
        recording: false,
        inconsistent: false,
        dirtyBytes: 64 * 1024,
      },
    ]);
    expect(dump.stdout).toBe('524288 65536\n');
    expect([named.code, named.stderr]).toEqual([
      1,
      expect.stringContaining("there are 'allocated'"),
    ]);
    expect([exported.code, exported.stderr]).toEqual([0, '']);
    const { stdout } = await lacuna('bitmap', 'dump', 'bits.qcow2', 'allocated');
    expect(stdout).toBe(dump.stdout);
    expect(JSON.parse(plan.stdout).dataBytes).toBe(64 * 1024);
    expect([copied.code, copied.stderr]).toEqual([0, '']);
    const want = Buffer.alloc(MiB, 1);
    want.set(pattern(64 * 1024), 512 * 1024);
    expect(readFileSync(join(folder, 'x.raw')).equals(want)).toBe(true);
    expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining('NAME=FILE')]);
  });

  test('keeps the granularity of its bitmaps', async () => {
    await populated();
    const [same, other, missing] = await inTurn([
      ['populate', '-g', '64K', 'sparse.raw', '-o', 'p.bitmaps'],
      ['populate', '-g', '1M', 'sparse.raw', '-o', 'p.bitmaps'],
      ['bitmap', 'list', 'no.bitmaps'],
    ]);
    expect(same.code).toBe(0);
    expect([other.code, other.stderr]).toEqual([1, expect.stringContaining('64 KiB already')]);
    expect([missing.code, existsSync(join(folder, 'no.bitmaps'))]).toEqual([1, false]);
  });
});

test('a file whose name says another format is warned of', async () => {
  writeFileSync(join(folder, 'd.raw'), pattern(4096));
  await lacuna('copy', 'd.raw', 'q.qcow2');
  await lacuna('bitmap', 'add', 'q.qcow2', 'b0');
  const [image, raw, other, exported, right] = await inTurn([
    ['copy', '-O', 'qcow2', 'd.raw', 'x.raw'],
    ['copy', '-O', 'raw', 'd.raw', 'y.qcow2'],
    ['copy', '-O', 'qcow2', 'd.raw', 'y.vdi'],
    ['bitmap', 'export', 'q.qcow2', 'b0', 'bits.img'],
    ['copy', '-O', 'qcow2', 'd.raw', 'right.qcow2'],
  ]);
  for (const { code } of [image, raw, other, exported]) expect(code).toBe(0);
  expect(image.stderr).toMatch(/x.raw is a qcow2 image, .* take for raw .* -f qcow2/);
  expect(raw.stderr).toMatch(/y.qcow2 is a raw image, .* take for qcow2 .* -f raw/);
  expect(other.stderr).toMatch(/y.vdi is a qcow2 image, .* not open at all/);
  expect(exported.stderr).toMatch(/bits.img is a qcow2 image, .* take for raw/);
  expect([right.code, right.stderr]).toEqual([0, '']);
});
