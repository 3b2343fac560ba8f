/** `lacuna daemon` as a process, and `lacuna qmp` beside it. */
import { type ChildProcess, execFileSync } from 'node:child_process';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createQcow2, openBitmaps } from 'lacuna';
import { Monitor } from 'lacuna/qmp';
import { describe, expect, onTestFinished, test } from 'vitest';
import { type CliResult, runCli } from '../../support/run-cli.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const SIZE = 1 << 20;

interface Running {
  readonly child: ChildProcess;
  readonly monitor: Monitor;
  readonly ended: Promise<CliResult>;
}

/** Starts a daemon that is ended with the test, and waits until clients may connect. */
async function started(...args: string[]): Promise<Running> {
  let child: ChildProcess | undefined;
  const ended = runCli(['daemon', '--qmp', 'unix:qmp', '--pidfile', 'pid', ...args], {
    started: (one) => {
      child = one;
    },
  });
  onTestFinished(async () => {
    child?.kill('SIGKILL');
    await ended;
  });
  // It is written once clients may connect.
  await expect.poll(() => existsSync('pid'), { timeout: 20_000 }).toBe(true);
  const monitor = await Monitor.connect({ path: join(process.cwd(), 'qmp') });
  onTestFinished(() => monitor.close());
  return { child: child!, monitor, ended };
}

async function image(): Promise<string[]> {
  await createQcow2('disk.qcow2', { size: SIZE });
  return [
    ...['--blockdev', 'driver=file,node-name=file,filename=disk.qcow2'],
    ...['--blockdev', '{"driver":"qcow2","node-name":"disk","file":"file"}'],
    ...['--nbd-server', 'addr.type=unix,addr.path=nbd'],
    ...['--export', 'nbd,id=e,node-name=disk,writable=on'],
  ];
}

describe('lacuna daemon', () => {
  test('serves what its arguments say, and stores bitmaps when it is terminated', async () => {
    const { child, monitor, ended } = await started(...(await image()));
    expect(readFileSync('pid', 'utf8')).toBe(`${child.pid}\n`);
    expect(statSync('qmp').mode & 0o777).toBe(0o600);
    await monitor.execute('block-dirty-bitmap-add', { node: 'disk', name: 'b', persistent: true });
    const uri = `nbd+unix:///disk?socket=${process.cwd()}/nbd`;
    execFileSync('qemu-io', ['-f', 'raw', '-c', 'write -P 7 64k 64k', uri]);
    child.kill('SIGTERM');
    expect(await ended).toMatchObject({ code: 0, stderr: '' });
    expect([existsSync('pid'), existsSync('qmp'), existsSync('nbd')]).toEqual([
      false,
      false,
      false,
    ]);
    const kept = await openBitmaps('disk.qcow2');
    onTestFinished(() => kept.close());
    expect(kept.bitmaps.list()).toMatchObject([{ name: 'b', inconsistent: false }]);
    expect((await kept.bitmaps.load('b')).dirtyBytes).toBe(65536);
    expect(execFileSync('qemu-img', ['check', 'disk.qcow2'], { encoding: 'utf8' })).toMatch(
      /No errors/,
    );
  });

  test('ends with jobs under way, at quit too', async () => {
    const { monitor, ended } = await started(...(await image()));
    await monitor.execute('blockdev-add', { driver: 'null-co', 'node-name': 'n', size: SIZE });
    await monitor.execute('blockdev-mirror', {
      ...{ 'job-id': 'm', device: 'disk', target: 'n', sync: 'full' },
    });
    await monitor.execute('quit');
    expect(await ended).toMatchObject({ code: 0, stderr: '' });
  });

  test('does not wait when it is told a second time', async () => {
    const { child, monitor, ended } = await started(
      '--blockdev',
      'driver=null-co,node-name=n,size=1M',
    );
    await monitor.execute('query-version');
    child.kill('SIGINT');
    child.kill('SIGINT');
    expect([0, 130]).toContain((await ended).code);
  });

  test('goes on in the background once clients may connect', async () => {
    const args = ['daemon', '--qmp', 'unix:qmp', '--pidfile', 'pid', '--daemonize'];
    expect(await runCli(args)).toEqual({ code: 0, stdout: '', stderr: '' });
    const pid = Number(readFileSync('pid', 'utf8'));
    onTestFinished(() => {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It has ended.
      }
    });
    const told = await runCli(['qmp', 'qmp', 'query-version']);
    expect(JSON.parse(told.stdout)).toMatchObject({ package: expect.stringContaining('lacuna') });
    expect(await runCli(['qmp', 'qmp', 'quit'])).toMatchObject({ code: 0 });
    await expect.poll(() => existsSync('pid'), { timeout: 20_000 }).toBe(false);
  });

  test('tells of a start in the background that fails', async () => {
    const result = await runCli(['daemon', '--blockdev', 'driver=file', '--daemonize']);
    expect(result.code).toBe(2);
    expect(result.stderr).toMatch(/--blockdev driver=file: Parameter 'filename' is missing/);
  });

  test('reads its arguments from a file', async () => {
    const config = { blockdev: [{ driver: 'null-co', 'node-name': 'n', size: SIZE }] };
    writeFileSync('daemon.json', JSON.stringify(config));
    const { monitor } = await started('--config', 'daemon.json');
    expect(await monitor.execute('query-named-block-nodes')).toMatchObject([{ 'node-name': 'n' }]);
  });

  test.each([
    ['null', /daemon\.json must hold one JSON object/],
    ['[]', /daemon\.json must hold one JSON object/],
    ['{"blockdev": "driver=null-co"}', /daemon\.json: "blockdev" must be a list/],
    ['{"blockdevs": []}', /Parameter 'blockdevs' is unexpected/],
  ])('refuses a file of arguments with %s in it', async (text, message) => {
    writeFileSync('daemon.json', text);
    const result = await runCli(['daemon', '--config', 'daemon.json']);
    expect(result).toMatchObject({ code: 2, stderr: expect.stringMatching(message) });
  });

  test('runs until it is terminated where it listens nowhere', async () => {
    let child: ChildProcess | undefined;
    const ended = runCli(
      ['daemon', '--blockdev', 'driver=null-co,node-name=n', '--pidfile', 'pid'],
      {
        started: (one) => {
          child = one;
        },
      },
    );
    onTestFinished(() => void child?.kill('SIGKILL'));
    await expect.poll(() => existsSync('pid'), { timeout: 20_000 }).toBe(true);
    child?.kill('SIGTERM');
    expect(await ended).toEqual({ code: 0, stdout: '', stderr: '' });
  });

  test('does not start where a file is not there', async () => {
    const result = await runCli(['daemon', '--blockdev', 'driver=file,node-name=a,filename=no']);
    expect(result).toMatchObject({ code: 1, stderr: expect.stringMatching(/no such file/) });
  });

  test('leaves the pidfile of another process alone', async () => {
    writeFileSync('pid', `${process.pid}\n`);
    const result = await runCli(['daemon', '--pidfile', 'pid']);
    expect(result).toMatchObject({ code: 1, stderr: expect.stringMatching(/which runs/) });
    writeFileSync('pid', 'something else');
    expect((await runCli(['daemon', '--pidfile', 'pid'])).code).toBe(1);
    expect(readFileSync('pid', 'utf8')).toBe('something else');
  });
});

describe('lacuna qmp', () => {
  test('takes arguments as JSON and as pairs, and tells refusals', async () => {
    await started('--blockdev', 'driver=null-co,node-name=n,size=1M');
    const pairs = ['block-dirty-bitmap-add', 'node=n', 'name=b', 'granularity=4096'];
    expect(await runCli(['qmp', 'qmp', ...pairs])).toMatchObject({ code: 0, stdout: '{}\n' });
    const json = ['block-dirty-bitmap-disable', '{"node": "n", "name": "b"}'];
    expect(await runCli(['qmp', 'qmp', ...json])).toMatchObject({ code: 0 });
    const { stdout } = await runCli(['qmp', 'qmp', 'query-named-block-nodes']);
    expect(JSON.parse(stdout)).toMatchObject([
      { 'dirty-bitmaps': [{ name: 'b', granularity: 4096, recording: false }] },
    ]);
    const refused = await runCli(['qmp', 'qmp', ...json.slice(0, 1), 'node=n', 'name=c']);
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringMatching(/'c' not found/) });
    expect((await runCli(['qmp', 'nowhere', 'query-jobs', 'a=1', 'a=2'])).code).toBe(2);
  });
});
