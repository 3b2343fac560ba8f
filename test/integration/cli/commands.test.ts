import type { ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, open, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { fakeDevice } from '../../support/fake-device.js';
import { serveDevice } from '../../support/nbd-server.js';
import { type CliOptions, runCli } from '../../support/run-cli.js';
import { signalWhen } from '../../support/signal-when.js';

const MIB = 2 ** 20;

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lacuna-cli-'));
  await makeDisk('disk.raw', 64 * MIB, [0, 32]);
});

afterAll(() => rm(folder, { recursive: true, force: true }));

/** A sparse file with a mebibyte of data at each of these mebibytes. */
async function makeDisk(name: string, size: number, dataAt: number[]): Promise<void> {
  const file = await open(join(folder, name), 'w');
  await file.truncate(size);
  for (const at of dataAt) await file.write(Buffer.alloc(MIB, `at ${at}`), 0, MIB, at * MIB);
  await file.close();
}

function lacuna(args: string[], options: CliOptions = {}) {
  return runCli(args, { cwd: folder, ...options });
}

describe('every command', () => {
  test('prints help on standard output', async () => {
    for (const command of ['copy', 'map', 'info', 'compare', 'digest', 'demo']) {
      const { code, stdout, stderr } = await lacuna([command, '--help']);
      expect([code, stderr]).toEqual([0, '']);
      expect(stdout).toContain(`Usage: lacuna ${command}`);
    }
  });

  test.each([
    ['an unknown command', ['nope']],
    ['an unknown flag', ['map', '--nope', 'disk.raw']],
    ['a missing argument', ['copy', 'disk.raw']],
    ['a size that cannot be read', ['copy', 'disk.raw', 'x.raw', '--request-size', '5KB']],
    ['an impossible request size', ['copy', 'disk.raw', 'x.raw', '--request-size', '3']],
    ['a description that makes no sense', ['map', 'driver=nope']],
    ['no command at all', []],
  ])('exits with 2 for %s', async (_what, args) => {
    const { code, stdout, stderr } = await lacuna(args);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(/^(lacuna: |Usage: )/);
  });

  test.each([['map'], ['info'], ['copy', 'x.raw']])(
    'exits with 1 and one line where %s cannot open its source',
    async (command, ...rest) => {
      const { code, stdout, stderr } = await lacuna([command, 'missing.raw', ...rest]);
      expect([code, stdout]).toEqual([1, '']);
      expect(stderr).toMatch(/^lacuna: .*missing\.raw.* \(ERR_DEVICE_OPEN\)\n$/);
    },
  );

  test('prints stacks when they are wanted', async () => {
    const { stderr } = await lacuna(['map', 'missing.raw'], { env: { LACUNA_DEBUG: '1' } });
    expect(stderr).toMatch(/\n {4}at /);
  });

  test('stays quiet when nobody reads its output', async () => {
    const { code, stderr } = await lacuna(['map', '--json', 'disk.raw'], {
      started: (child) => child.stdout?.destroy(),
    });
    expect([code, stderr]).toEqual([0, '']);
  });
});

describe('lacuna digest', () => {
  test('prints the same digest as a copy does, and reads only data', async () => {
    const { code, stdout } = await lacuna(['digest', 'disk.raw']);
    expect(code).toBe(0);
    const [digest, name] = stdout.trimEnd().split('  ');
    expect([digest, name]).toEqual([expect.stringMatching(/^lacuna1:[0-9a-f]{64}$/), 'disk.raw']);
    const report = JSON.parse((await lacuna(['digest', '--json', 'disk.raw'])).stdout);
    expect(report).toMatchObject({ digest, size: 64 * MIB, readBytes: 2 * MIB });
    const copied = await lacuna(['copy', '--digest', 'disk.raw', 'digested.raw']);
    expect(copied.stdout).toContain(`Digest: ${digest}\n`);
    expect((await lacuna(['digest', 'digested.raw'])).stdout).toBe(`${digest}  digested.raw\n`);
  });
});

describe('lacuna map', () => {
  const extents = [
    { start: 0, length: MIB, data: true, zero: false, hole: false },
    { start: MIB, length: 31 * MIB, data: false, zero: true, hole: true },
    { start: 32 * MIB, length: MIB, data: true, zero: false, hole: false },
    { start: 33 * MIB, length: 31 * MIB, data: false, zero: true, hole: true },
  ];

  test('prints extents as JSON', async () => {
    const { code, stdout } = await lacuna(['map', '--json', 'disk.raw']);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toEqual(extents);
  });

  test('prints every extent into a pipe, and no picture', async () => {
    const { stdout } = await lacuna(['map', 'disk.raw']);
    const lines = stdout.trimEnd().split('\n');
    expect(lines).toHaveLength(1 + extents.length);
    expect(lines[2].trim().split(/ {2,}/)).toEqual(['1048576', '32505856', '31 MiB', 'hole']);
  });

  test('draws a picture', async () => {
    const { stdout } = await lacuna(['map', '--picture', '--width', '16', 'disk.raw']);
    expect(stdout.split('\n')[0]).toBe('-.......-.......');
    const env = { LC_ALL: 'C.UTF-8' };
    const wide = await lacuna(['map', '--picture', '--width', '64', 'disk.raw'], { env });
    expect(wide.stdout.split('\n')[0]).toBe(`█${'·'.repeat(31)}█${'·'.repeat(31)}`);
  });

  test('draws a petabyte at once', async () => {
    const device = `driver=null,size=${2 ** 50}`;
    const { code, stdout } = await lacuna(['map', '--picture', '--width', '8', device]);
    expect([code, stdout.split('\n')[0]]).toEqual([0, '........']);
  });

  test('names the contexts that there are when it is asked for an unknown one', async () => {
    const { code, stderr } = await lacuna(['map', '--context', 'qemu:dirty-bitmap:b', 'disk.raw']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/base:allocation.*ERR_CONTEXT_UNKNOWN/);
  });
});

describe('lacuna info', () => {
  test('tells size and allocation as JSON', async () => {
    const { code, stdout } = await lacuna(['info', '--json', 'disk.raw']);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      driver: 'file',
      size: 64 * MIB,
      contexts: ['base:allocation'],
      allocation: { data: 2 * MIB, zero: 0, hole: 62 * MIB },
    });
  });

  test('tells size and allocation as text', async () => {
    const { stdout } = await lacuna(['info', 'disk.raw']);
    expect(stdout).toMatch(/^size +64 MiB \(67108864 bytes\)$/m);
    expect(stdout).toMatch(/^data +2 MiB \(3\.13 %\)$/m);
  });
});

describe('lacuna copy', () => {
  test('copies what is data and says so, without a bar in a pipe', async () => {
    const { code, stdout, stderr } = await lacuna(['copy', 'disk.raw', 'copy.raw']);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(
      /^Copied a disk of 64 MiB: moved 2 MiB, left 62 MiB alone, in .*\.\nIt took \d+ requests?.*of memory at most\.\n$/,
    );
    expect((await read('copy.raw')).equals(await read('disk.raw'))).toBe(true);
  });

  test('prints progress and report as JSON, a document on each line', async () => {
    const { code, stdout } = await lacuna(['copy', '--json', 'disk.raw', 'json.raw']);
    expect(code).toBe(0);
    const documents = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(documents.at(-1)).toMatchObject({ type: 'report', size: 64 * MIB, movedBytes: 2 * MIB });
    const progress = documents.slice(0, -1);
    expect(progress.length).toBeGreaterThan(0);
    expect(progress.every(({ type }) => type === 'progress')).toBe(true);
    expect(progress.at(-1)).toMatchObject({ phase: 'done', doneBytes: 2 * MIB });
  });

  test('finishes although nobody reads its JSON', async () => {
    const args = ['copy', '--json', 'disk.raw', 'unread.raw'];
    const { code, stderr } = await lacuna(args, { started: (child) => child.stdout?.destroy() });
    expect([code, stderr]).toEqual([0, '']);
    expect((await read('unread.raw')).equals(await read('disk.raw'))).toBe(true);
  });

  test('refuses to copy a file onto itself', async () => {
    const { code, stderr } = await lacuna(['copy', 'disk.raw', './disk.raw']);
    expect(code).toBe(1);
    expect(stderr).toContain('ERR_COPY_MISMATCH');
  });
});

describe('lacuna compare', () => {
  test('exits with 0 for equal disks, 1 for different ones, 2 for errors', async () => {
    await makeDisk('same.raw', 64 * MIB, [0, 32]);
    await makeDisk('other.raw', 64 * MIB, [0, 32, 40]);
    const equal = await lacuna(['compare', 'disk.raw', 'same.raw']);
    expect([equal.code, equal.stdout]).toEqual([0, expect.stringMatching(/^Equal: /)]);
    const different = await lacuna(['compare', 'disk.raw', 'other.raw']);
    const offset = `the first difference is at byte ${40 * MIB}`;
    expect([different.code, different.stdout]).toEqual([1, expect.stringContaining(offset)]);
    expect((await lacuna(['compare', 'disk.raw', 'missing.raw'])).code).toBe(2);
  });

  test('prints one JSON document', async () => {
    await makeDisk('third.raw', 64 * MIB, [0]);
    const { code, stdout } = await lacuna(['compare', '--json', 'disk.raw', 'third.raw']);
    expect([code, JSON.parse(stdout)]).toEqual([
      1,
      expect.objectContaining({ equal: false, offset: 32 * MIB }),
    ]);
  });

  test('compares in as many threads as it is told to', async () => {
    const { stdout } = await lacuna([
      'compare',
      '--json',
      '--threads',
      '1',
      'disk.raw',
      'same.raw',
    ]);
    expect(JSON.parse(stdout)).toMatchObject({ equal: true, threads: 1 });
  });
});

describe('an interrupted command', () => {
  test.each([
    ['SIGINT', 130, 'Ctrl-C again'],
    ['SIGTERM', 143, 'a second SIGTERM'],
    ['SIGHUP', 129, 'a second SIGHUP'],
  ] as const)(
    'after %s exits with %i, and leaves no file that looks whole',
    async (signal, exitCode, again) => {
      const place = await mkdtemp(join(folder, 'slow-'));
      const target = join(place, 'copy.raw');
      let isAsked = false;
      let answer: (() => void) | undefined;
      const answered = new Promise<void>((resolve) => (answer = resolve));
      // No answer comes before the signal has arrived: by then nothing can have ended.
      const read = async (_offset: number, bytes: Uint8Array) => {
        isAsked = true;
        await answered;
        bytes.fill(1);
      };
      const { uri } = await serveDevice(fakeDevice(64 * MIB, { read, extents: undefined }));
      const { code, stdout, stderr } = await lacuna(['copy', uri, target], {
        started(child) {
          void signalWhen(child, signal, () => isAsked);
          let said = '';
          child.stderr?.on('data', (text) => {
            said += text;
            if (said.includes('lacuna: finishing ')) answer?.();
          });
        },
      });
      expect([code, stdout]).toEqual([exitCode, '']);
      expect(stderr.trimEnd().split('\n')).toEqual([
        expect.stringMatching(new RegExp(`^lacuna: finishing .*; ${again} stops at once$`)),
        expect.stringContaining(`${target}.partial`),
        expect.stringContaining('--resume FILE'),
        expect.stringMatching(/^lacuna: Stopped before it was done: .*\(ERR_JOB_STOPPED\)$/),
      ]);
      expect(existsSync(target)).toBe(false);
      expect(await readdir(place)).toContainEqual(expect.stringMatching(/^copy\.raw\.partial-/));
    },
  );
});

describe('a command whose output nobody reads', () => {
  /** More lines than a pipe and the streams at its ends hold. */
  async function makeScattered(name: string): Promise<void> {
    const file = await open(join(folder, name), 'w');
    const block = Buffer.alloc(4096, 1);
    for (let at = 0; at < 10_000; at++) await file.write(block, 0, block.length, at * 16_384);
    await file.close();
  }

  test('exits with 130 when it is interrupted', async () => {
    await makeScattered('scattered.raw');
    const { code, stderr } = await lacuna(['map', '--json', 'scattered.raw'], {
      started(child) {
        child.stdout?.once('data', async () => {
          child.stdout?.pause();
          // For it to get stuck; however long this takes, it cannot end, and is not stuck in the worst case.
          await sleep(500);
          child.kill('SIGINT');
        });
        child.once('exit', () => child.stdout?.resume());
      },
    });
    expect([code, stderr]).toEqual([130, 'lacuna: stopped before it was done\n']);
  });
});

describe('lacuna demo', () => {
  async function demo(options: CliOptions = {}, size = '64M') {
    const place = await mkdtemp(join(folder, 'demo-'));
    const result = await lacuna(['demo', '--size', size, '--folder', place], options);
    return { ...result, left: await readdir(place) };
  }

  test.each(['64M', '67108865'])(
    'tells its story of a disk of %s and leaves nothing behind',
    async (size) => {
      const { code, stdout, stderr, left } = await demo({}, size);
      expect([code, stderr, left]).toEqual([0, '', []]);
      for (const step of [1, 2, 3, 4, 5]) expect(stdout).toMatch(new RegExp(`^${step}\\. `, 'm'));
      expect(stdout).toContain('Equal.');
      expect(stdout).toMatch(
        /^ +A plain copy reads 64 MiB, which alone takes \d.* fills 64 MiB\.$/m,
      );
      // A screen of 80 by 24, with a line for the next command.
      const lines = stdout.trimEnd().split('\n');
      expect(lines.length).toBeLessThan(24);
      expect(lines.filter((line) => line.length > 80)).toEqual([]);
      expect(lines.at(-4)).toMatch(/Try next:$/);
      const next = lines.slice(-3).map((line) => line.split('#')[0].trim());
      expect(next).toEqual([
        expect.stringMatching(/lacuna demo --live$/),
        expect.stringMatching(/lacuna map disk\.raw$/),
        expect.stringMatching(/lacuna copy --dry-run disk\.raw$/),
      ]);
    },
  );

  test('tells what README shows, but for the figures', async () => {
    const readme = await readFile(new URL('../../../README.md', import.meta.url), 'utf8');
    const [, shown] = /```text\n(1\. A machine[^`]*)```/.exec(readme)!;
    const { stdout } = await demo();
    expect(withoutFigures(stdout)).toEqual(withoutFigures(shown));
  });

  test('leaves nothing behind when it is interrupted', async () => {
    const interrupt = (child: ChildProcess) =>
      void child.stdout?.once('data', () => child.kill('SIGINT'));
    const { code, left } = await demo({ started: interrupt });
    expect([code, left]).toEqual([130, []]);
  });

  test('says what to do where it cannot run', async () => {
    const { code, stderr } = await lacuna(['demo', '--folder', 'missing']);
    expect([code, stderr]).toEqual([1, expect.stringContaining('there is no such folder')]);
    expect((await lacuna(['demo', '--size', '1K'])).code).toBe(2);
  });
});

/** Lines of the demo without amounts, pictures, and npm's way to start it. */
function withoutFigures(text: string): string[] {
  const lines = text.trim().split('\n');
  return lines
    .filter((line) => !/^ +[-+%#.░▒▓█·]+$/.test(line))
    .map((line) =>
      line
        .replace(/[░-]( \(some)|[█#](?= \(all)|[·.](?= is none)/g, 'sign$1')
        .replace(/(?:\b[\d.,]+ (?:[KMGTP]iB|B|ms|s|min|h)\b ?)+/g, 'amount ')
        .replace(/\b[\d,]+ (new place|old one|times)s?\b/g, 'some $1')
        .replace(/npx /, '')
        .replace(/ +/g, ' '),
    );
}

async function read(name: string): Promise<Buffer> {
  return readFile(join(folder, name));
}
