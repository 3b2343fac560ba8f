/** What goes wrong while a copy runs: it ends soon, says what happened, and loses nothing. */
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Worker } from 'node:worker_threads';
import { beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { openDevice } from '#dist/block/index.js';
import { copy } from '#dist/copy/index.js';
import { usePeers } from '../../support/peers.js';
import { type CliResult, runCli } from '../../support/run-cli.js';
import { signalWhen } from '../../support/signal-when.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const MiB = 2 ** 20;
const top = temporaryFolder();
const peers = usePeers();
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(top, 'test-'));
});

/** One line that says what happened, with its code, and where the rest is; nothing about unhandled rejections. */
function expectFailure({ code, stdout, stderr }: CliResult, errorCode: string, what: RegExp): void {
  expect(stdout).toBe('');
  expect(stderr).toMatch(what);
  // And where the part is that had been written.
  const left = /^lacuna: (what was written .*\.partial|.* was written in place: )/;
  const lines = stderr.trimEnd().split('\n');
  expect(lines.filter((line) => !left.test(line))).toHaveLength(1);
  expect(stderr).toContain(errorCode);
  expect(code).toBe(1);
}

/** A server that answers a kind of request after hours, and writes down what it is asked for. */
function silentServer(log: string, delay: 'rdelay' | 'wdelay') {
  const plugin = delay === 'rdelay' ? 'pattern' : 'memory';
  const filters = ['--filter=log', '--filter=delay'];
  return peers.nbdkit(['-t', '16', ...filters, plugin, '1G', `${delay}=10000`, `logfile=${log}`]);
}

/** By how many clients a server was asked to read, or to write, until now. */
function clientsIn(log: string, kind: 'Read' | 'Write'): number {
  const asked = readFileSync(log, 'utf8').matchAll(new RegExp(`connection=(\\d+) ${kind} `, 'g'));
  return new Set([...asked].map(([, client]) => client)).size;
}

/** A thread that is ended while it loads koffi takes the whole process with it: here threads do without. */
function threadsMayBeKilled(): void {
  vi.stubEnv('LACUNA_FFI', 'off');
  onTestFinished(() => void vi.unstubAllEnvs());
}

describe('a copy whose', () => {
  test.each([
    ['source server dies, on the calling thread', '0', 'source'],
    ['source server dies, in threads', '2', 'source'],
    ['target server dies, on the calling thread', '0', 'target'],
    ['target server dies, in threads', '2', 'target'],
  ])('%s, fails at once', async (_name, threads, side) => {
    const log = join(folder, 'log');
    const isSource = side === 'source';
    const source = isSource ? silentServer(log, 'rdelay') : peers.nbdkit(['pattern', '1G']);
    const target = isSource ? peers.nbdkit(['memory', '1G']) : silentServer(log, 'wdelay');
    const uris = [(await source).uri, (await target).uri];
    const copying = runCli(['copy', '--threads', threads, ...uris]);
    const clients = Math.max(1, Number(threads));
    await expect.poll(() => clientsIn(log, isSource ? 'Read' : 'Write')).toBe(clients);
    await (await (isSource ? source : target)).stop('SIGKILL');
    expectFailure(await copying, 'ERR_NBD_DISCONNECTED', /connect/);
  });

  test.each(['0', '2'])(
    'target disk is full, fails with its name and the place (threads: %s)',
    async (threads) => {
      const mount = join(folder, 'small');
      execFileSync('mkdir', [mount]);
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', mount]);
      try {
        const source = join(folder, 'source.raw');
        writeFileSync(source, Buffer.alloc(32 * MiB, 7));
        const target = join(mount, 'target.raw');
        const result = await runCli(['copy', '--threads', threads, source, target]);
        expectFailure(result, 'ERR_DEVICE_IO', /ENOSPC|full|space/);
        expect(result.stderr).toContain(target);
        expect(existsSync(target)).toBe(false);
        expect(readdirSync(mount)).toEqual([expect.stringMatching(/^target\.raw\.partial-/)]);
      } finally {
        execFileSync('umount', [mount]);
      }
    },
  );

  test.each(['0', '2'])(
    'target server is full, fails with what the server said (threads: %s)',
    async (threads) => {
      const source = await peers.nbdkit(['pattern', '16M']);
      const target = await peers.nbdkit(['full', '16M']);
      const result = await runCli(['copy', '--threads', threads, source.uri, target.uri]);
      expectFailure(result, 'ERR_NBD_REMOTE', /ENOSPC/);
    },
  );

  test.each(['1', '0'])(
    'source is smaller than it said, fails with the place (FFI off: %s)',
    async (off) => {
      const source = join(folder, 'source.raw');
      writeFileSync(source, Buffer.alloc(64 * MiB, 7));
      const script = `
      import { copy, openDevice } from 'lacuna';
      import { truncateSync } from 'node:fs';
      const source = await openDevice(process.argv[1]);
      truncateSync(process.argv[1], 1000000);
      const error = await copy({ source, target: process.argv[2] }).then(() => 'copied', (error) => error);
      console.log(JSON.stringify({ code: error.code, message: error.message, offset: error.offset }));`;
      const env = { ...process.env, LACUNA_FFI: off === '1' ? 'off' : '' };
      const args = ['--input-type=module', '-e', script, source, join(folder, 'target.raw')];
      const stdout = execFileSync(process.execPath, args, {
        env,
        cwd: process.cwd(),
        encoding: 'utf8',
      });
      const error = JSON.parse(stdout);
      expect(error.code).toBe('ERR_DEVICE_SHORT');
      expect(error.message).toContain(source);
      expect(existsSync(join(folder, 'target.raw'))).toBe(false);
    },
  );

  test('source answers a read with an error, fails with the place', async () => {
    const source = await peers.nbdkit([
      '--filter=error',
      'pattern',
      '64M',
      'error-pread=EIO',
      'error-pread-rate=100%',
    ]);
    for (const threads of ['0', '3']) {
      const result = await runCli([
        'copy',
        '--threads',
        threads,
        source.uri,
        join(folder, 'x.raw'),
      ]);
      expectFailure(result, 'ERR_NBD_REMOTE', /EIO/);
    }
  });

  test('worker thread is killed, fails instead of waiting for it', async () => {
    threadsMayBeKilled();
    const log = join(folder, 'log');
    const source = await silentServer(log, 'rdelay');
    const target = join(folder, 'target.raw');
    let victim: Worker | undefined;
    process.once('worker', (worker: Worker) => {
      victim = worker;
    });
    const lost = expect(copy({ source: source.uri, target, threads: 2 })).rejects.toMatchObject({
      name: 'LacunaError',
      code: 'ERR_WORKER_LOST',
    });
    await expect.poll(() => clientsIn(log, 'Read')).toBe(2);
    await victim?.terminate();
    await lost;
    expect(existsSync(target)).toBe(false);
  });
});

describe('a copy whose policy is to go on', () => {
  test('ends when a worker thread is killed after a failure, since memory may be locked', async () => {
    threadsMayBeKilled();
    const MiB = 1024 * 1024;
    // The two threads take a half each.
    const pread = `if [ $4 -ge ${4 * MiB} ]; then echo EIO broken >&2; exit 1; fi; sleep 20`;
    const disk = [
      `get_size=echo ${8 * MiB}`,
      'thread_model=echo parallel',
      'can_multi_conn=exit 0',
      `pread=${pread}`,
    ];
    const source = await peers.nbdkit(['eval', ...disk]);
    const target = join(folder, 'target.raw');
    const workers: Worker[] = [];
    const note = (worker: Worker) => void workers.push(worker);
    process.on('worker', note);
    const job = copy({ source: source.uri, target, threads: 2, onReadError: 'stop' });
    let kill: Promise<unknown> | undefined;
    job.on('paused', () => {
      // The other thread waits for its read.
      kill ??= sleep(500).then(() => Promise.all(workers.map((worker) => worker.terminate())));
      job.resume();
    });
    // What had failed, or that the thread was lost while it tried again.
    const code = expect.stringMatching(/^ERR_(NBD_REMOTE|WORKER_LOST)$/);
    await expect(job).rejects.toMatchObject({ code });
    process.off('worker', note);
    await kill;
    await source.stop('SIGKILL');
  });
});

describe('an interrupted copy', () => {
  test.each(['0', '2'])(
    'ends soon, exits with 130, and leaves no file that looks whole (threads: %s)',
    async (threads) => {
      const source = await peers.nbdkit(['pattern', '16G']);
      const target = join(folder, 'target.raw');
      writeFileSync(target, 'what was there before');
      // At this rate it would take minutes.
      const slowly = ['copy', '--rate', '32M', '--threads', threads];
      const result = await runCli([...slowly, source.uri, target], {
        // Once something was written: without that nothing is left.
        started: (child) => {
          const hasBegun = (name: string) =>
            name.startsWith('target.raw.partial-') && statSync(join(folder, name)).blocks > 0;
          void signalWhen(child, 'SIGINT', () => readdirSync(folder).some(hasBegun));
        },
      });
      expect(result.code).toBe(130);
      expect(readFileSync(target, 'utf8')).toBe('what was there before');
      const [rest] = readdirSync(folder).filter((name) => name.startsWith('target.raw.partial-'));
      expect(statSync(join(folder, rest)).size).toBe(2 ** 34);
    },
  );

  test('on files, on the calling thread, is heard between two requests', async () => {
    const source = join(folder, 'source.raw');
    execFileSync('truncate', ['-s', '1G', source]);
    const chunk = Buffer.alloc(MiB, 1);
    const abort = new AbortController();
    for (let i = 0; i < 512; i++) writeFileSync(source, chunk, { flag: i === 0 ? 'w' : 'a' });
    setTimeout(() => abort.abort(), 20);
    const job = copy({
      source,
      target: join(folder, 'x.raw'),
      threads: 0,
      requestSize: 65536,
      detectZeroes: 'on',
      signal: abort.signal,
    });
    await expect(job).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });
});

describe('lacuna copy refuses', () => {
  test('to copy a file onto itself, by any name', async () => {
    const [file, link] = [join(folder, 'a.raw'), join(folder, 'b.raw')];
    writeFileSync(file, 'precious');
    execFileSync('ln', [file, link]);
    const result = await runCli(['copy', file, link]);
    expectFailure(result, 'ERR_COPY_MISMATCH', /is the source itself/);
    expect(readFileSync(file, 'utf8')).toBe('precious');
  });

  test('to lose the rest of an earlier copy that it is made from', async () => {
    const target = join(folder, 'disk.raw');
    const rest = `${target}.partial`;
    writeFileSync(rest, Buffer.alloc(MiB, 5));
    expect((await runCli(['copy', rest, target])).code).toBe(0);
    expect(readFileSync(rest).equals(Buffer.alloc(MiB, 5))).toBe(true);
    expect(readFileSync(target).equals(Buffer.alloc(MiB, 5))).toBe(true);
  });

  test('to write through a link that somebody put where the unfinished copy goes', async () => {
    const [source, target, victim] = ['a.raw', 'b.raw', 'victim'].map((name) => join(folder, name));
    writeFileSync(source, Buffer.alloc(4096, 1));
    writeFileSync(victim, 'precious');
    symlinkSync(victim, `${target}.partial`);
    await copy({ source, target });
    expect(readFileSync(victim, 'utf8')).toBe('precious');
    expect(lstatSync(target).isFile()).toBe(true);
  });

  test('to mix two copies that are made to one name at a time', async () => {
    const target = join(folder, 'target.raw');
    const sources = [1, 2].map((fill) => {
      const path = join(folder, `${fill}.raw`);
      writeFileSync(path, Buffer.alloc(80 * MiB, fill));
      return path;
    });
    const copies = sources.map((source) => copy({ source, target, threads: 2, rate: 1 }));
    // Both have begun before one is done.
    for (const job of copies) {
      await expect.poll(() => job.progress().doneBytes).toBeGreaterThan(0);
    }
    for (const job of copies) job.setRate(undefined);
    const ends = await Promise.allSettled(copies);
    expect(ends.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    // The one that comes second does not replace what it knows nothing of.
    const late = ends.find(({ status }) => status === 'rejected') as PromiseRejectedResult;
    expect(late.reason).toMatchObject({ code: 'ERR_FILE_CHANGED', device: target });
    const first = sources[ends.findIndex(({ status }) => status === 'fulfilled')];
    expect(readFileSync(first).equals(readFileSync(target))).toBe(true);
  });

  test('an incremental copy to a target of another size, and leaves it alone', async () => {
    const source = await peers.nbdkit(['memory', '2M']);
    const target = join(folder, 'target.raw');
    writeFileSync(target, Buffer.alloc(MiB, 3));
    const error = await copy({
      source: source.uri,
      target,
      bitmap: await emptyBitmap(2 * MiB),
    }).then(
      () => undefined,
      (error) => error,
    );
    expect(error).toMatchObject({ code: 'ERR_COPY_MISMATCH' });
    expect(readFileSync(target).equals(Buffer.alloc(MiB, 3))).toBe(true);
  });

  test('a target of a format that cannot be written, and says what to do', async () => {
    const source = join(folder, 'a.raw');
    writeFileSync(source, 'x');
    const result = await runCli(['copy', source, join(folder, 'b.vmdk')]);
    expectFailure(result, 'ERR_DEVICE_FORMAT', /qemu-nbd/);
  });

  test('a target in a folder that is not there, and leaves nothing behind', async () => {
    const source = join(folder, 'a.raw');
    writeFileSync(source, 'x');
    expectFailure(
      await runCli(['copy', source, join(folder, 'no', 'b.raw')]),
      'ERR_DEVICE_OPEN',
      /no.b\.raw/,
    );
  });
});

test('a replaced target keeps its mode, so that nobody else can read the new content', async () => {
  const [source, target] = [join(folder, 'a.raw'), join(folder, 'b.raw')];
  writeFileSync(source, Buffer.alloc(4096, 1));
  writeFileSync(target, 'secret', { mode: 0o600 });
  await copy({ source, target });
  expect(statSync(target).mode & 0o777).toBe(0o600);
  expect(readFileSync(target)).toEqual(readFileSync(source));
  rmSync(target);
  truncateSync(source, 0);
  await copy({ source, target });
  expect(statSync(target).size).toBe(0);
});

test('a new target is not open to more people than its source', async () => {
  const [source, target] = [join(folder, 'a.raw'), join(folder, 'b.raw')];
  writeFileSync(source, 'secret', { mode: 0o600 });
  await copy({ source, target });
  expect(statSync(target).mode & 0o777).toBe(0o600);
});

test('a link to a target that is not there yet stays a link', async () => {
  const [source, target, link] = ['a.raw', 'b.raw', 'link'].map((name) => join(folder, name));
  writeFileSync(source, 'content');
  symlinkSync('b.raw', link);
  await copy({ source, target: link });
  expect(lstatSync(link).isSymbolicLink()).toBe(true);
  expect(readFileSync(target, 'utf8')).toBe('content');
});

test('an opened target forgets that it was zero when worker threads have written to it', async () => {
  const [full, empty, target] = ['full.raw', 'empty.raw', 'target.raw'].map((n) => join(folder, n));
  writeFileSync(full, Buffer.alloc(3 * MiB, 1));
  for (const path of [empty, target]) execFileSync('truncate', ['-s', '3M', path]);
  await using device = await openDevice(target, { writable: true, knownZero: true });
  await copy({ source: full, target: device, threads: 3 });
  await copy({ source: empty, target: device });
  expect(readFileSync(target).equals(Buffer.alloc(3 * MiB))).toBe(true);
});

async function emptyBitmap(size: number) {
  const { Bitmap } = await import('#dist/bitmap/index.js');
  return new Bitmap({ size, granularity: 65536 });
}
