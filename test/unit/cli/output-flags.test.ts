import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import type { Shell } from '#dist/cli/shell/shell.js';
import { ProgressBar } from '#dist/cli/text/progress.js';
import { runHere } from '../../support/run-here.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const MIB = 2 ** 20;

function moment(doneBytes: number, elapsedMs: number, phase = 'Copying') {
  return { phase, totalBytes: 4 * MIB, doneBytes, bytesPerSecond: 0, elapsedMs };
}

/** What a bar writes into a log, of moments one after the other. */
function logged(
  moments: ReturnType<typeof moment>[],
  how: Pick<Shell, 'progressForm' | 'isQuiet'>,
): string[] {
  const lines: string[] = [];
  const shell = { ...how, note: (line: string) => lines.push(line) } as unknown as Shell;
  const bar = new ProgressBar('Copying', shell);
  for (const each of moments) bar.show(each);
  bar.stop();
  return lines;
}

describe('progress without a terminal', () => {
  const MOMENTS = [
    moment(0, 0),
    moment(MIB, 1000),
    moment(2 * MIB, 3000),
    moment(3 * MIB, 5000),
    moment(4 * MIB, 5500),
    moment(4 * MIB, 5600),
    moment(4 * MIB, 5700, 'Flushing'),
  ];

  test('is told from time to time, where a phase begins, and at the end', () => {
    expect(logged(MOMENTS, { progressForm: 'line' })).toEqual([
      'lacuna: Copying   0 %  0 B of 4 MiB\n',
      'lacuna: Copying  50 %  2 MiB of 4 MiB\n',
      'lacuna: Copying 100 %  4 MiB of 4 MiB\n',
      'lacuna: Flushing 100 %  4 MiB of 4 MiB\n',
    ]);
  });

  test('is told to programs as one document a line', () => {
    const documents = logged(MOMENTS, { progressForm: 'json' }).map((line) => JSON.parse(line));
    expect(documents.map(({ type, doneBytes }) => [type, doneBytes])).toEqual(
      [0, 2, 4, 4].map((done) => ['progress', done * MIB]),
    );
  });

  test('is not told where nobody asks for it, nor where all shall be quiet', () => {
    expect(logged(MOMENTS, {})).toEqual([]);
    expect(logged(MOMENTS, { progressForm: 'line', isQuiet: true })).toEqual([]);
  });
});

describe('a command that takes long', () => {
  const folder = temporaryFolder();
  let ends: string[];

  beforeAll(() => {
    writeFileSync(join(folder, 'disk.raw'), Buffer.alloc(MIB, 7));
    ends = [join(folder, 'disk.raw'), join(folder, 'copy.raw')];
  });

  test.each([['-p'], ['--progress']])('tells its progress as lines with %s', async (flag) => {
    const { code, stdout, stderr } = await runHere(['copy', flag, ...ends]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: expect.stringMatching(/^lacuna: /) });
    expect(stderr).toMatch(/^lacuna: Planning\n[\s\S]*^lacuna: Done 100 % {2}1 MiB of 1 MiB/m);
    expect(stdout).toContain('Copied a disk of 1 MiB');
  });

  test('tells its progress as the documents of --json with --progress=json', async () => {
    const { code, stdout, stderr } = await runHere(['copy', '--progress=json', ...ends]);
    expect(code).toBe(0);
    const documents = stderr
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(documents[0]).toMatchObject({ type: 'progress', phase: 'plan', state: 'running' });
    expect(stdout).toContain('Copied a disk of 1 MiB');
  });

  test('prints nothing with -q, also beside -p, and tells by its exit code', async () => {
    expect(await runHere(['copy', '-q', ...ends])).toMatchObject({
      code: 0,
      stdout: '',
      stderr: '',
    });
    const same = await runHere(['compare', '-pq', ...ends]);
    expect(same).toMatchObject({ code: 0, stdout: '', stderr: '' });
    writeFileSync(join(folder, 'other.raw'), Buffer.alloc(MIB, 8));
    const other = await runHere(['compare', '-q', ends[0], join(folder, 'other.raw')]);
    expect(other).toMatchObject({ code: 1, stdout: '', stderr: '' });
  });

  test('prints what --json asks for, and errors, with -q as well', async () => {
    const { stdout } = await runHere(['compare', '-q', '--json', ...ends]);
    expect(JSON.parse(stdout)).toMatchObject({ equal: true });
    const failed = await runHere(['copy', '-q', join(folder, 'none.raw'), ends[1]]);
    expect(failed).toMatchObject({ code: 1, stdout: '' });
    expect(failed.stderr).toContain('none.raw');
  });

  test('tells each step with -v', async () => {
    const { stderr } = await runHere(['copy', '-v', ...ends]);
    expect(stderr).toMatch(/^lacuna: \d+\.\d{3} s: source: .*disk\.raw$/m);
    expect(stderr).toMatch(/^lacuna: \d+\.\d{3} s: Done$/m);
  });

  test('refuses another form of progress, and takes one that is a value for that value', async () => {
    const { code, stderr } = await runHere(['copy', '--progress=xml', ...ends]);
    expect({ code, stderr }).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('--progress=json'),
    });
    const value = await runHere(['copy', '--resume', '--progress=json', '--dry-run', ...ends]);
    expect(value).toMatchObject({ code: 0, stderr: '' });
    // Behind the end of all flags it is a name.
    const name = await runHere(['copy', ends[0], '--', '--progress=json', 'more']);
    expect(name.stderr).toContain('too many arguments');
  });
});
