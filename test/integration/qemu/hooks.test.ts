/** Commands that run before and after a backup of a running machine. */
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type BackupOutcome, backupMachine } from 'lacuna/qemu';
import { Repository } from 'lacuna/repository';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { LiveMachine } from '../../support/live-machine.js';
import { usePeers } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';
import { signalWhen } from '../../support/signal-when.js';

const peers = usePeers('suite');
let live: LiveMachine;
let folder: string;
let repository: string;
/** What the hooks have written. */
let log: string;

beforeAll(async () => {
  live = await LiveMachine.start(peers);
  folder = join(live.folder, '..');
  repository = join(folder, 'repository');
  log = join(folder, 'log');
});

beforeEach(() => {
  rmSync(log, { force: true });
  live.proxy.reset();
});

function backup(flags: readonly string[], options?: Parameters<typeof runCli>[1]) {
  const nbd = `nbd+unix:///?socket=${live.nbd.path}`;
  const machine = ['--qmp', live.proxy.path, '--nbd', nbd, '--disk', 'node:vda'];
  return runCli(['backup', ...machine, '--machine', 'web', ...flags, repository], options);
}

function logged(): string[] {
  return existsSync(log) ? readFileSync(log, 'utf8').trimEnd().split('\n') : [];
}

/** A command that writes what it was told; quotes in it are the shell's. */
function note(...variables: string[]): string {
  return `echo ${variables.map((name) => `$LACUNA_${name}`).join(' ')} >> ${log}`;
}

function points(): number {
  return Repository.open(repository).points('web')[0].points.length;
}

describe('hooks of a backup', () => {
  test('run before anything is begun and when all has ended, and what they print is shown', async () => {
    const seen: string[][] = [];
    live.proxy.reset({
      before: ({ name }) => {
        if (!name.startsWith('query-') && !name.startsWith('x-')) seen.push(logged());
      },
    });
    const before = `${note('HOOK', 'MACHINE', 'REPOSITORY')}; echo to be seen; echo and this >&2`;
    const after = note('HOOK', 'MACHINE', 'OUTCOME', 'POINT');
    const { code, stdout, stderr } = await backup(['--before', before, '--after', after, '--json']);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ point: { number: 1 }, warnings: [] });
    expect(stderr.split('\n').sort()).toEqual(['', 'before: and this', 'before: to be seen']);
    const first = `before web ${repository}`;
    expect(new Set(seen.map((lines) => lines.join()))).toEqual(new Set([first]));
    expect(logged()).toEqual([first, 'after web done 1']);
  });

  test('begin no backup where the first of them fails, and the last one is told', async () => {
    const had = points();
    const after = note('OUTCOME', 'ERROR_CODE', 'POINT');
    const { code, stderr } = await backup(['--before', 'exit 7', '--after', after]);
    expect(code).toBe(1);
    expect(stderr).toContain(
      'the backup was not begun: the command of --before ended with 7: exit 7 (ERR_HOOK_FAILED)',
    );
    expect(logged()).toEqual(['failed ERR_HOOK_FAILED']);
    expect(live.proxy.passed).not.toContain('transaction');
    expect(points()).toBe(had);
  });

  test('leave a backup that is done as it is where the last one fails, and that is told', async () => {
    const had = points();
    const { code, stderr } = await backup(['--after', 'kill -9 $$']);
    expect(code).toBe(3);
    expect(stderr).toContain('warning: what was to be done after it has failed: the command of');
    expect(stderr).toContain('ended with SIGKILL: kill -9 $$');
    expect(points()).toBe(had + 1);
  });

  test('are told why a backup has failed', async () => {
    live.proxy.reset({
      before: ({ name }) => {
        if (name === 'transaction') live.proxy.cut();
      },
    });
    const { code } = await backup(['--after', note('OUTCOME', 'ERROR_CODE')]);
    expect(code).toBe(1);
    expect(logged()).toEqual(['failed ERR_QMP_UNANSWERED']);
  });

  test('that take too long are ended with all that they have started', async () => {
    const { code, stderr } = await backup([
      ...[
        '--before',
        `sh -c 'trap "echo ended >> ${log}; exit" TERM; while :; do sleep 0.1; done'`,
      ],
      ...['--hook-timeout', '1'],
    ]);
    expect(code).toBe(1);
    expect(stderr).toContain('did not end within 1 s (--hook-timeout)');
    expect(logged()).toEqual(['ended']);
  });

  test.each([
    ['and holds their output', ''],
    ['and has an output of its own', '>/dev/null 2>&1'],
  ])('that take too long are ended with what ignores being told to end %s', async (_, output) => {
    const pid = join(folder, 'deaf');
    const deaf = `sh -c 'trap "" TERM; echo $$ > ${pid}; exec sleep 600' ${output}`;
    const { code, stderr } = await backup(['--before', `${deaf} & wait`, '--hook-timeout', '1']);
    expect(code).toBe(1);
    expect(stderr).toContain('did not end within 1 s (--hook-timeout)');
    const isThere = () => existsSync(`/proc/${readFileSync(pid, 'utf8').trim()}/cmdline`);
    await expect.poll(isThere).toBe(false);
  });

  test('may leave something running, which holds their output', async () => {
    const pid = join(folder, 'left');
    const before = `sleep 600 & echo $! > ${pid}; echo to be seen`;
    const { code, stderr } = await backup(['--before', before]);
    process.kill(Number(readFileSync(pid, 'utf8')), 'SIGKILL');
    expect(code).toBe(0);
    expect(stderr).toContain('before: to be seen');
  });

  test('are ended by Ctrl-C before the backup is begun, and the last one runs all the same', async () => {
    const started = join(folder, 'started');
    const { code } = await backup(
      ['--before', `touch ${started}; exec sleep 600`, '--after', note('OUTCOME', 'ERROR_CODE')],
      { started: (child) => void signalWhen(child, 'SIGINT', () => existsSync(started)) },
    );
    expect(code).toBe(130);
    expect(logged()).toEqual([expect.stringMatching(/^failed /)]);
    expect(live.proxy.passed).not.toContain('transaction');
  });

  test('are for running machines alone', async () => {
    const { code, stderr } = await runCli(['backup', '--before', 'true', 'disk.raw', repository]);
    expect(code).toBe(2);
    expect(stderr).toContain('--before goes with --qmp');
  });

  test('may be functions, which are called once each', async () => {
    const told: (string | BackupOutcome)[] = [];
    await using machine = await live.connect();
    const options = { machine: 'api', disks: live.choices };
    const report = await backupMachine(Repository.open(repository), machine, {
      ...options,
      before: () => void told.push('before', ...readdirSync(live.folder)),
      after: async (outcome) => void told.push(outcome),
    });
    expect(told[0]).toBe('before');
    expect(told).toHaveLength(2);
    expect(told[1]).toMatchObject({ done: true, report: { point: report.point } });
    const job = backupMachine(Repository.open(repository), machine, {
      ...options,
      before: () => {
        throw new Error('not now');
      },
      after: () => {
        throw new Error('nor then');
      },
    });
    await expect(job).rejects.toThrow('not now (and what was to be done after it has failed: nor');
    const wrong = () =>
      backupMachine(Repository.open(repository), machine, { ...options, before: 'true' as never });
    expect(wrong).toThrow(/before must be a function/);
  });
});
