/** What people do to a copy that runs in a terminal: interrupt it, once or twice, pause it, and let it go on. */
import { type ChildProcess, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { createQcow2, openDevice } from '#dist/block/index.js';
import { usePeers } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';
import { signalWhen } from '../../support/signal-when.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const top = temporaryFolder();
const peers = usePeers();
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(top, 'test-'));
});

interface Told {
  type: string;
  phase?: string;
  state?: string;
  movedBytes: number;
  error?: { code: string };
}

/** Calls `tell` with every line of JSON that a command prints, until that returns true. */
function follow(child: ChildProcess, tell: (line: Told) => boolean): void {
  let text = '';
  const listen = (chunk: string) => {
    const lines = (text + chunk).split('\n');
    text = lines.pop()!;
    if (lines.some((line) => tell(JSON.parse(line)))) child.stdout?.off('data', listen);
  };
  child.stdout?.on('data', listen);
}

/** A server whose answers take a while, and what it writes down of its reads. */
async function slowServer(delay: string, size = '16M') {
  const log = join(folder, 'log');
  const filters = ['--filter=log', '--filter=delay'];
  const how = ['pattern', size, `rdelay=${delay}`, `logfile=${log}`];
  const { uri } = await peers.nbdkit(['-t', '32', ...filters, ...how]);
  const logged = () => readFileSync(log, 'utf8');
  return {
    uri,
    /** Bytes of all reads that it was asked for until now. */
    askedBytes: () =>
      [...logged().matchAll(/ Read id=.* count=(0x[0-9a-f]+)/g)]
        .map(([, count]) => Number(count))
        .reduce((sum, count) => sum + count, 0),
    /** Whether it has answered every one of them. */
    isIdle: () =>
      logged().match(/ Read id=/g)?.length === logged().match(/\.\.\.Read id=/g)?.length,
  };
}

const flags = ['copy', '--json', '--request-size', '64K', '--requests', '2', '--threads'];

describe.each(['0', '2'])('lacuna copy --threads %s', (threads) => {
  test('finishes what is in flight when it is interrupted once, and goes on where it was', async () => {
    const source = await slowServer('50ms');
    const [target, resume] = [join(folder, 'target.raw'), join(folder, 'resume')];
    const args = [...flags, threads, '--resume', resume, source.uri, target];
    let moved = 0;
    // At this rate it would take minutes.
    const first = await runCli([...args, '--rate', '64K'], {
      started: (child) => {
        child.stdout?.on('data', (text: string) => {
          moved = Math.max(
            moved,
            ...[...text.matchAll(/"movedBytes":(\d+)/g)].map((m) => Number(m[1])),
          );
        });
        follow(child, ({ movedBytes }) => movedBytes > 2 ** 15 && child.kill('SIGINT'));
      },
    });
    expect(first.code).toBe(130);
    expect(first.stderr).toContain('(ERR_JOB_STOPPED)');
    expect(first.stderr).toMatch(/remain .*run the same command again/);
    expect(existsSync(target)).toBe(false);

    const second = await runCli(args);
    expect(second.code).toBe(0);
    const report = JSON.parse(second.stdout.trimEnd().split('\n').at(-1)!);
    // Not a byte of what was moved is moved again: all of it had been finished and flushed.
    expect(report.movedBytes + moved).toBe(16 * 2 ** 20);
    expect(existsSync(resume)).toBe(false);
    await using device = await openDevice(source.uri);
    const want = Buffer.alloc(device.size);
    await device.read(0, want);
    expect(readFileSync(target).equals(want)).toBe(true);
  });

  test('ends at once when it is interrupted twice', async () => {
    const source = await slowServer('1000');
    const result = await runCli([...flags, threads, source.uri, join(folder, 'x.raw')], {
      started: (child) => {
        // When requests are in flight, and none has been answered.
        void signalWhen(child, 'SIGTERM', () => source.askedBytes() > 0);
        child.stderr?.once('data', () => child.kill('SIGTERM'));
      },
    });
    expect(result.code).toBe(143);
    expect(result.stderr).toMatch(/^lacuna: finishing .*; a second SIGTERM stops at once\n$/);
  });

  test('pauses and goes on when it gets SIGUSR2', async () => {
    const source = await slowServer('10ms', '8M');
    const rate = join(folder, 'rate');
    // At this rate it would take minutes, and four requests a second.
    writeFileSync(rate, '16K\n');
    const states: (string | undefined)[] = [];
    const moved: number[] = [];
    let isPaused = false;
    const args = [...flags, threads, '--rate-file', rate, source.uri, join(folder, 'x.raw')];
    const { code, stderr } = await runCli(args, {
      started: (child) => {
        let said = '';
        child.stderr?.on('data', (text) => {
          said += text;
          if (!said.includes('goes on') || readFileSync(rate, 'utf8') === '') return;
          writeFileSync(rate, '');
          child.kill('SIGHUP');
        });
        follow(child, ({ type, state, movedBytes }) => {
          if (type === 'report') return true;
          if (states.at(-1) !== state) states.push(state);
          if (!isPaused && movedBytes > 0) {
            isPaused = true;
            child.kill('SIGUSR2');
          }
          if (state !== 'paused' || moved.length === 10) return false;
          // What was in flight at first may still come in.
          if (moved.length > 0 || (source.isIdle() && movedBytes === source.askedBytes())) {
            moved.push(movedBytes);
          }
          if (moved.length === 10) child.kill('SIGUSR2');
          return false;
        });
      },
    });
    expect(code).toBe(0);
    expect(new Set(moved).size).toBe(1);
    expect(states).toEqual(['running', 'paused', 'running', 'done']);
    expect(stderr).toMatch(/paused; "kill -USR2 \d+" makes it go on\nlacuna: goes on\n/);
  });

  test('reads its rate again from a file when it gets SIGHUP', async () => {
    const file = join(folder, 'rate');
    writeFileSync(file, '64K\n');
    writeFileSync(join(folder, 'd.raw'), Buffer.alloc(8 * 2 ** 20, 1));
    const args = ['--rate-file', file, join(folder, 'd.raw'), join(folder, 'x.raw')];
    const texts = ['fast', ''];
    const { code, stderr } = await runCli([...flags, threads, ...args], {
      started: (child) => {
        const change = () => {
          const text = texts.shift();
          if (text === undefined) return;
          writeFileSync(file, text);
          child.kill('SIGHUP');
        };
        follow(child, ({ phase }) => {
          if (phase !== 'move') return false;
          // At the rate that it begins with this would take two minutes.
          child.stderr?.once('data', change);
          change();
          return true;
        });
      },
    });
    expect(code).toBe(0);
    expect(stderr).toMatch(
      /warning: .*must hold a rate.*stays as it was\n.*no limit from now on\n$/s,
    );
    expect(readFileSync(join(folder, 'x.raw')).every((byte) => byte === 1)).toBe(true);
  });

  test('refuses a pipe as a file of rates, and a pipe that becomes one is not waited for', async () => {
    const pipe = join(folder, 'pipe');
    spawnSync('mkfifo', [pipe]);
    writeFileSync(join(folder, 'f.raw'), Buffer.alloc(2 ** 20, 1));
    const ends = [join(folder, 'f.raw'), join(folder, 'y.raw')];
    const refused = await runCli(['copy', '--rate-file', pipe, ...ends]);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain(`--rate-file ${pipe} is a pipe`);
  });

  test('waits for somebody to mend what failed, where that is its policy', async () => {
    const source = await peers.nbdkit(['pattern', '4M']);
    const trigger = join(folder, 'trigger');
    writeFileSync(trigger, '');
    const target = await peers.nbdkit([
      '--filter=error',
      'memory',
      '4M',
      'error-pwrite-rate=100%',
      `error-pwrite-file=${trigger}`,
    ]);
    const args = [...flags, threads, '--on-write-error', 'stop', source.uri, target.uri];
    const errors: unknown[] = [];
    const { code, stderr } = await runCli(args, {
      started: (child) =>
        follow(child, ({ state, error }) => {
          if (state !== 'paused') return false;
          errors.push(error);
          rmSync(trigger);
          return child.kill('SIGUSR2');
        }),
    });
    expect(code).toBe(0);
    expect(errors).toMatchObject([{ code: 'ERR_NBD_REMOTE' }]);
    expect(stderr).toMatch(/paused: .*EIO.* tries again, Ctrl-C gives up\nlacuna: goes on/);
  });
});

test('a comparison pauses and goes on when it gets SIGUSR2', async () => {
  // No read is answered before this is gone.
  const gate = join(folder, 'gate');
  const log = join(folder, 'log');
  writeFileSync(gate, '');
  const { uri } = await peers.nbdkit([
    ...['--filter=log', 'eval', `logfile=${log}`, 'get_size=echo 4M'],
    `pread=while [ -e ${gate} ]; do sleep 0.1; done; head -c $3 /dev/zero`,
  ]);
  const { code, stderr } = await runCli(['compare', uri, uri], {
    started: (child) => {
      void signalWhen(child, 'SIGUSR2', () => / Read id=/.test(readFileSync(log, 'utf8')));
      child.stderr?.once('data', () => child.kill('SIGUSR2'));
      let said = '';
      child.stderr?.on('data', (text) => {
        said += text;
        if (said.includes('goes on')) rmSync(gate, { force: true });
      });
    },
  });
  expect(code).toBe(0);
  expect(stderr).toMatch(/paused; "kill -USR2 \d+" makes it go on\nlacuna: goes on\n/);
});

test('a commit finishes what is in flight when it is interrupted, and is gone on with', async () => {
  // More than is moved in the time that anybody waits for a processor.
  const size = 32 * 2 ** 20;
  const [base, overlay] = [join(folder, 'base.raw'), join(folder, 'overlay.qcow2')];
  writeFileSync(base, Buffer.alloc(size));
  await createQcow2(overlay, { size, backing: { filename: base, format: 'raw' } });
  const data = Buffer.alloc(size, 'data');
  await using device = await openDevice(overlay, { writable: true });
  await device.write(0, data);
  await device.close();
  const file = { driver: 'file', filename: overlay };
  const slow = { driver: 'throttle', 'bytes-per-second': 2 ** 20, file };
  const top = JSON.stringify({ driver: 'qcow2', file: slow });
  const stopped = await runCli(['commit', top], {
    started: (child) => void signalWhen(child, 'SIGINT', () => readFileSync(base).some(Boolean)),
  });
  expect(stopped.stderr).toMatch(/finishing .*Ctrl-C again.*\n.*\(ERR_JOB_STOPPED\)\n/);
  expect(stopped.code).toBe(130);
  expect(readFileSync(base).equals(data)).toBe(false);
  expect((await runCli(['commit', overlay])).code).toBe(0);
  expect(readFileSync(base).equals(data)).toBe(true);
});
