/** Files that a command makes beside others: none of anybody else's is taken, replaced or removed, whatever its name. */
import { type ChildProcess, execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { pattern } from '../../support/fake-device.js';
import { runCli } from '../../support/run-cli.js';
import { runHere } from '../../support/run-here.js';
import { signalWhen } from '../../support/signal-when.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

const SIZE = 256 * 1024;
let folder: string;
workInNewFolders((entered) => {
  folder = entered;
});

const at = (name: string) => join(folder, name);
const names = () => fs.readdirSync(folder).sort();
const read = (name: string) => fs.readFileSync(at(name));
const lacuna = (...args: string[]) => runHere(args);

function makeDisk(name: string, seed = 1): Uint8Array {
  const content = pattern(SIZE, seed);
  fs.writeFileSync(at(name), content);
  return content;
}

describe('a disk whose name begins as that of a side file stays', () => {
  test('as the target of a copy with --resume', async () => {
    const content = makeDisk('src');
    expect(await lacuna('copy', '--resume', 'disk', 'src', 'disk.new')).toMatchObject({ code: 0 });
    expect(read('disk.new').equals(content)).toBe(true);
    expect(names()).toEqual(['disk.new', 'src']);
  });

  test.each([
    ['--resume', ['copy', '--resume', 'disk', 'disk.new', 'out']],
    ['--digest-file', ['copy', '--digest-file', 'disk', 'disk.new', 'out']],
    ['populate', ['populate', 'disk.new', '--output', 'disk']],
  ])('as the source of %s', async (_, args) => {
    const content = makeDisk('disk.new');
    expect(await lacuna(...args)).toMatchObject({ code: 0 });
    expect(read('disk.new').equals(content)).toBe(true);
  });
});

describe('what somebody has put where a side file was to be expected stays', () => {
  test.each<[string, () => void]>([
    ['a symbolic link', () => fs.symlinkSync('victim', at('side.new'))],
    [
      'a file of another owner',
      () => {
        fs.writeFileSync(at('side.new'), '', { mode: 0o666 });
        fs.chownSync(at('side.new'), 65534, 65534);
      },
    ],
    ['a FIFO', () => execFileSync('mkfifo', [at('side.new')])],
  ])('%s', async (_, make) => {
    makeDisk('src');
    fs.writeFileSync(at('victim'), 'precious');
    make();
    expect(await lacuna('copy', '--digest-file', 'side', 'src', 'out')).toMatchObject({ code: 0 });
    expect(fs.statSync(at('side')).uid).toBe(0);
    fs.rmSync(at('side'));
    expect(await lacuna('populate', 'src', '--output', 'side')).toMatchObject({ code: 0 });
    expect(fs.statSync(at('side')).uid).toBe(0);
    fs.rmSync(at('side'));
    expect(await lacuna('copy', '--resume', 'side', 'src', 'out')).toMatchObject({ code: 0 });
    expect(read('victim').toString()).toBe('precious');
    expect(names()).toEqual(['out', 'side.new', 'src', 'victim']);
  });

  test('behind a link, where the link stays and what it leads to is new', async () => {
    makeDisk('src');
    fs.mkdirSync(at('below'));
    for (const [link, args] of [
      ['digest', ['copy', '--digest-file', 'digest', 'src', 'out']],
      ['bits', ['populate', 'src', '--output', 'bits']],
      ['disk', ['copy', 'src', 'disk']],
    ] as const) {
      fs.symlinkSync(`below/${link}`, at(link));
      for (let i = 0; i < 2; i++) expect(await lacuna(...args)).toMatchObject({ code: 0 });
      expect(fs.readlinkSync(at(link))).toBe(`below/${link}`);
      expect(fs.statSync(at(`below/${link}`)).size).toBeGreaterThan(0);
    }
    expect(fs.readdirSync(at('below')).sort()).toEqual(['bits', 'digest', 'disk']);
  });

  test('at the final name, as an error at once: a FIFO or a folder', async () => {
    makeDisk('src');
    execFileSync('mkfifo', [at('fifo')]);
    fs.mkdirSync(at('dir'));
    for (const name of ['fifo', 'dir']) {
      for (const args of [
        ['copy', '--digest-file', name, 'src', 'out'],
        ['copy', '--resume', name, 'src', 'out'],
        ['populate', 'src', '--output', name],
      ]) {
        const { code, stderr } = await lacuna(...args);
        expect([args, code]).toEqual([args, 1]);
        expect(stderr).toContain(name);
      }
    }
    expect(names()).toEqual(['dir', 'fifo', 'src']);
  });
});

describe('one file for two uses is refused before anything is written', () => {
  const qemuImg = (...args: string[]) =>
    execFileSync('qemu-img', args, { cwd: folder, stdio: 'ignore' });

  beforeEach(() => {
    makeDisk('base.raw');
    fs.linkSync(at('base.raw'), at('hard'));
    fs.symlinkSync('out', at('soft'));
    qemuImg('create', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'mid.qcow2');
    qemuImg('create', '-f', 'qcow2', '-b', 'mid.qcow2', '-F', 'qcow2', 'top.qcow2');
  });

  test.each<[string, string[], number]>([
    ['a digest file that is the target', ['copy', '--digest-file', 'soft', 'base.raw', 'out'], 2],
    [
      'a digest file that is the source’s base',
      ['copy', '--digest-file', 'hard', 'top.qcow2', 'out'],
      2,
    ],
    [
      'a digest file that is the resume file',
      ['copy', '--digest-file', 'x', '--resume', './x', 'base.raw', 'out'],
      2,
    ],
    [
      'a resume file that is the source’s base',
      ['copy', '--resume', 'hard', 'top.qcow2', 'out'],
      2,
    ],
    ['a resume file that is the target', ['copy', '--resume', 'soft', 'base.raw', 'out'], 2],
    ['a rate file that is the target', ['copy', '--rate-file', 'soft', 'base.raw', 'out'], 2],
    ['bitmaps in the file that is their disk', ['populate', 'top.qcow2', '--output', 'hard'], 2],
    [
      'a target that is below the base of the new image',
      ['copy', '--mode', 'top', '-B', 'top.qcow2', '-F', 'qcow2', 'top.qcow2', 'mid.qcow2'],
      1,
    ],
    [
      'an image that is its own data file',
      ['copy', '-o', 'data_file=t.qcow2', 'base.raw', 't.qcow2'],
      1,
    ],
    [
      'the same by another path',
      ['copy', '-o', `data_file=../${'{}'}/t.qcow2`, 'base.raw', 't.qcow2'],
      1,
    ],
    ['a data file that is the source', ['copy', '-o', 'data_file=hard', 'base.raw', 't.qcow2'], 1],
  ])('%s', async (_, args, code) => {
    const here = folder.split('/').at(-1)!;
    const before = names().map((name) => [name, fs.existsSync(at(name)) && read(name)]);
    const result = await lacuna(...args.map((arg) => arg.replace('{}', here)));
    expect([result.stdout, result.code], result.stderr).toEqual(['', code]);
    expect(names().map((name) => [name, fs.existsSync(at(name)) && read(name)])).toEqual(before);
  });

  test('an image that is its own data file by links that are there', async () => {
    fs.writeFileSync(at('t.qcow2'), '');
    fs.linkSync(at('t.qcow2'), at('t.hard'));
    fs.symlinkSync('t.qcow2', at('t.soft'));
    for (const name of ['t.hard', 't.soft']) {
      const { code, stderr } = await lacuna(
        'copy',
        '-o',
        `data_file=${name}`,
        'base.raw',
        't.qcow2',
      );
      expect([code, stderr]).toEqual([1, expect.stringContaining('ERR_COPY_MISMATCH')]);
    }
    expect(fs.statSync(at('t.qcow2')).size).toBe(0);
  });
});

describe('a file that is replaced is open to nobody who could not use it before', () => {
  const acl = (name: string) => execFileSync('getfacl', ['-cnp', at(name)], { encoding: 'utf8' });

  test.each<[string, string, string[]]>([
    ['a target', 'out.raw', ['copy', 'src', 'out.raw']],
    ['an image', 'out.qcow2', ['copy', '-O', 'qcow2', 'src', 'out.qcow2']],
    ['a digest', 'digest', ['copy', '--digest-file', 'digest', 'src', 'out']],
    ['a file of bitmaps', 'bits', ['populate', 'src', '--output', 'bits']],
  ])('%s', async (_, name, args) => {
    makeDisk('src');
    expect(await lacuna(...args)).toMatchObject({ code: 0 });
    fs.chmodSync(at(name), 0o600);
    execFileSync('setfacl', ['-m', 'u:nobody:rw', at(name)]);
    execFileSync('setfattr', ['-n', 'user.purpose', '-v', 'database', at(name)]);
    const before = [acl(name), fs.statSync(at(name)).ino];
    const result = await lacuna(...args);
    expect([result.code, result.stderr]).toEqual([0, '']);
    expect(fs.statSync(at(name)).ino, 'it is another file').not.toBe(before[1]);
    expect(acl(name)).toBe(before[0]);
    expect(acl(name)).toMatch(/^group::---$/m);
    execFileSync('getfattr', ['-n', 'user.purpose', at(name)], { stdio: 'ignore' });
  });

  test('a new target, by the list of its source and by the base below that', async () => {
    makeDisk('src');
    fs.chmodSync(at('src'), 0o600);
    execFileSync('setfacl', ['-m', 'u:nobody:rw', at('src')]);
    expect(await lacuna('copy', 'src', 'out')).toMatchObject({ code: 0 });
    expect(fs.statSync(at('out')).mode & 0o777).toBe(0o600);
    execFileSync('qemu-img', ['create', '-f', 'qcow2', '-b', 'src', '-F', 'raw', at('top.qcow2')], {
      stdio: 'ignore',
    });
    fs.chmodSync(at('top.qcow2'), 0o644);
    expect(await lacuna('copy', 'top.qcow2', 'flat')).toMatchObject({ code: 0 });
    expect(fs.statSync(at('flat')).mode & 0o777).toBe(0o600);
  });
});

/** Kills, or interrupts, a copy that has begun to write. */
async function stopCopy(signal: NodeJS.Signals, ...args: string[]) {
  const before = new Set(names());
  const started = (child: ChildProcess) => {
    const begun = () =>
      names().some(
        (name) =>
          name.startsWith('t.raw.partial-') &&
          !before.has(name) &&
          fs.statSync(at(name), { throwIfNoEntry: false })?.blocks,
      );
    return signalWhen(child, signal, begun);
  };
  // Slow enough to be stopped, whatever else the machine does.
  return runCli(['copy', '--rate', '4K', '--threads', '0', ...args], {
    cwd: folder,
    started: (child) => void started(child),
  });
}

describe('what copies leave that are stopped', () => {
  test('is named, and does not take the name of a file that is there', async () => {
    makeDisk('src');
    fs.writeFileSync(at('t.raw.partial'), 'precious');
    for (const [signal, code] of [
      ['SIGINT', 130],
      ['SIGTERM', 143],
      ['SIGHUP', 129],
    ] as const) {
      const result = await stopCopy(signal, 'src', 't.raw');
      expect(result.code).toBe(code);
      const [, name] =
        /written until then is in (\S+), which is not whole/.exec(result.stderr) ?? [];
      expect(fs.existsSync(name)).toBe(true);
    }
    expect(read('t.raw.partial').toString()).toBe('precious');
    expect(names().filter((name) => name.startsWith('t.raw.partial-'))).toHaveLength(3);
  });

  test('is mentioned by the next copy, and removed on demand, with nothing else', async () => {
    const content = makeDisk('src');
    for (let i = 0; i < 2; i++) await stopCopy('SIGKILL', 'src', 't.raw');
    const left = names().filter((name) => name.startsWith('t.raw.partial-'));
    expect(left).toHaveLength(2);
    // Somebody's own, of a name that only looks like one of ours; and ours of another target.
    fs.writeFileSync(at('t.raw.partial-0123456789abcdef01234567'), 'precious');
    fs.symlinkSync('src', at('t.raw.partial-0123456789abcdef01234568'));
    fs.renameSync(at(left[1]), at(left[1].replace('t.raw', 'u.raw')));

    const next = await lacuna('copy', 'src', 't.raw');
    expect(next.code).toBe(0);
    expect(next.stderr).toMatch(
      /1 unfinished file lies beside \S*t\.raw .*"lacuna copy --clean \S*t\.raw"/,
    );

    const clean = await lacuna('copy', '--clean', 't.raw');
    expect(clean).toMatchObject({ code: 0, stderr: '' });
    expect(clean.stdout).toMatch(new RegExp(`^Removed \\S*${left[0]} \\(.*\\)\\.\n$`));
    expect(names()).toEqual(
      [
        'src',
        't.raw',
        't.raw.partial-0123456789abcdef01234567',
        't.raw.partial-0123456789abcdef01234568',
        left[1].replace('t.raw', 'u.raw'),
      ].sort(),
    );
    expect(read('src').equals(content)).toBe(true);
    expect((await lacuna('copy', '--clean', 't.raw')).stdout).toMatch(/No copy has left/);
    expect((await lacuna('copy', '--clean', 'src', 't.raw')).code).toBe(2);
    expect((await lacuna('copy', '--clean', '--verify', 't.raw')).code).toBe(2);
  });

  test('stays where it is in use, or where a resume file may go on with it', async () => {
    const content = makeDisk('src');
    await stopCopy('SIGKILL', 'src', 't.raw');
    const [used] = names().filter((name) => name.startsWith('t.raw.partial-'));
    const fd = fs.openSync(at(used), 'r');
    await stopCopy('SIGKILL', '--resume', 'notes', 'src', 't.raw');
    const both = names().filter((name) => name.startsWith('t.raw.partial-'));
    expect(both).toHaveLength(2);
    const { stdout } = await lacuna('copy', '--clean', '--json', 't.raw');
    fs.closeSync(fd);
    const { removed, kept } = JSON.parse(stdout);
    expect(removed).toEqual([]);
    expect(kept).toHaveLength(2);
    expect(await lacuna('copy', '--resume', 'notes', 'src', 't.raw')).toMatchObject({ code: 0 });
    expect(read('t.raw').equals(content)).toBe(true);
    expect(names()).toEqual(['src', 't.raw', used].sort());
  });
});
