/**
 * Servers that fail in every way that nbdkit can make them, under every policy: each copy ends as its policy says,
 * and outside of what its report lists the target holds what the source holds. Nothing is silently wrong.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type CopyOptions, type CopyReport, copy, type LeftOutRange } from '#dist/copy/index.js';
import { LacunaError } from '#dist/errors/index.js';
import { noise } from '../../support/noise.js';
import { usePeers } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const KiB = 1024;
const MiB = 1024 * KiB;
const SIZE = 8 * MiB;
const top = temporaryFolder();
const peers = usePeers();
const disk = join(top, 'disk.raw');
let folder: string;
let target: string;

/** A disk of data and holes, in pieces of 256 KiB by turns but for the first MiB, which is all data. */
beforeAll(() => {
  const bytes = Buffer.alloc(SIZE);
  for (let at = 0; at < SIZE; at += 256 * KiB) {
    if (at < MiB || at % (512 * KiB) === 0) noise(256 * KiB).copy(bytes, at);
  }
  writeFileSync(disk, bytes);
  execFileSync('fallocate', ['--dig-holes', disk]);
});

beforeEach(() => {
  folder = mkdtempSync(join(top, 'test-'));
  target = join(folder, 'target.raw');
  // What a target held before must be gone afterwards, wherever the source reads as zero.
  writeFileSync(target, noise(SIZE));
});

const serve = (args: readonly string[], file: string) =>
  peers.nbdkit([...args.filter((arg) => arg.startsWith('--')), 'file', file, ...rest(args)]);
const rest = (args: readonly string[]) => args.filter((arg) => !arg.startsWith('--'));

/** Fails with the first byte that differs outside of the ranges, and with what was left out and is not zero. */
function expectCopied(errors: readonly LeftOutRange[] = []): void {
  const [want, got] = [readFileSync(disk), readFileSync(target)];
  for (const { side, offset, length } of errors) {
    if (side === 'source') want.fill(0, offset, offset + length);
    else got.copy(want, offset, offset, offset + length);
  }
  const at = want.equals(got) ? -1 : want.findIndex((byte, i) => byte !== got[i]);
  expect(at, 'the first byte that differs').toBe(-1);
}

type Faults = readonly [name: string, source: readonly string[], target: readonly string[]];

const ERRORS: readonly Faults[] = [
  ['reads fail', ['--filter=error', 'error-pread=EIO', 'error-pread-rate=30%'], []],
  ['writes fail', [], ['--filter=error', 'error-pwrite=EIO', 'error-pwrite-rate=30%']],
  ['zero requests fail', [], ['--filter=error', 'error-zero=EIO', 'error-zero-rate=30%']],
  [
    'everything but writes fails',
    ['--filter=error', 'error-pread-rate=20%', 'error-extents-rate=50%', 'error=EIO'],
    ['--filter=error', 'error-zero-rate=20%', 'error-extents-rate=50%', 'error=EIO'],
  ],
  [
    'memory runs out',
    ['--filter=error', 'error-pread=ENOMEM', 'error-pread-rate=15%'],
    ['--filter=error', 'error-pwrite=ENOMEM', 'error-pwrite-rate=15%'],
  ],
];

const THREADS = [0, 2];

async function copyFaulty(faults: Faults, options: Partial<CopyOptions>): Promise<CopyReport> {
  const [source, served] = [await serve(faults[1], disk), await serve(faults[2], target)];
  const sizes = { requestSize: 64 * KiB, requests: 4 };
  return await copy({ source: source.uri, target: served.uri, ...sizes, ...options });
}

describe.each(THREADS)('with %i threads', (threads) => {
  describe.each(ERRORS)('where %s now and then', (...faults) => {
    test('a copy fails with the place, when failures are reported', async () => {
      const error = await copyFaulty(faults, { threads }).catch((thrown) => thrown);
      expect(error).toBeInstanceOf(LacunaError);
      expect(error).toMatchObject({ code: 'ERR_NBD_REMOTE', offset: expect.any(Number) });
    });

    test('a copy is whole, when it may try again', async () => {
      const retry = { attempts: 40, backoffMs: 1 };
      const policies = { onReadError: 'retry', onWriteError: 'retry', retry } as const;
      const report = await copyFaulty(faults, { threads, ...policies });
      expect(report.retries).toBeGreaterThan(0);
      expectCopied();
    });

    test('a copy lists what it lacks, when it may leave something out', async () => {
      const policies = { onReadError: 'ignore', onWriteError: 'ignore' } as const;
      const report = await copyFaulty(faults, { threads, ...policies });
      expect(report.moreErrors).toBe(0);
      const listed = report.errors.reduce((sum, { length }) => sum + length, 0);
      // A range may be left out on both sides.
      expect(listed).toBeGreaterThanOrEqual(report.leftOutBytes);
      expectCopied(report.errors);
    });

    test('a copy is whole, when somebody resumes it each time it stops', async () => {
      const [source, served] = [await serve(faults[1], disk), await serve(faults[2], target)];
      const job = copy({
        source: source.uri,
        target: served.uri,
        threads,
        requestSize: 256 * KiB,
        requests: 2,
        onReadError: 'stop',
        onWriteError: 'stop',
        retry: { attempts: 3, backoffMs: 1, reconnectSeconds: 0 },
      });
      job.on('paused', () => job.resume());
      await job;
      expectCopied();
    });
  });

  test('what a broken disk cannot give is left out to the sector, and listed', async () => {
    const bad = [
      [300 * KiB, 4 * KiB],
      [512 * KiB, 64 * KiB],
      [MiB + 20 * KiB, 12 * KiB],
      [SIZE - 512 * KiB, 4 * KiB],
    ];
    const mapfile = join(folder, 'disk.map');
    const lines = ['0x0 + 1'];
    let end = 0;
    for (const [offset, length] of bad) {
      lines.push(hex(end, offset - end, '+'), hex(offset, length, '-'));
      end = offset + length;
    }
    writeFileSync(mapfile, `${[...lines, hex(end, SIZE - end, '+')].join('\n')}\n`);
    const faults = ['--filter=ddrescue', `ddrescue-mapfile=${mapfile}`];
    const options = { threads, onReadError: 'ignore' } as const;
    const report = await copyFaulty(['', faults, []], options);
    const listed = report.errors.map(({ side, offset, length }) => [side, offset, length]);
    // The part of a bad range that is a hole is never read.
    expect(listed).toEqual(bad.map(([offset, length]) => ['source', offset, length]));
    expectCopied(report.errors);

    const cli = ['copy', '--json', '--threads', `${threads}`, '--on-read-error', 'ignore'];
    const source = await serve(faults, disk);
    const { code, stdout, stderr } = await runCli([...cli, source.uri, target]);
    expect(code).toBe(3);
    expect(stderr).toMatch(
      /left out 4096 bytes at 307200 of the source: .*EIO.*\(ERR_NBD_REMOTE\)/,
    );
    const last = JSON.parse(stdout.trimEnd().split('\n').at(-1)!);
    expect(last).toMatchObject({
      type: 'report',
      errors: report.errors.map(({ side, offset, length }) => ({ side, offset, length })),
    });
    expectCopied(report.errors);
  });

  test.each<[string, readonly string[], readonly string[]]>([
    ['is slow', ['--filter=delay', 'rdelay=5ms'], ['--filter=delay', 'wdelay=5ms']],
    ['has a limited rate', ['--filter=rate', 'rate=400M'], ['--filter=rate', 'rate=400M']],
    [
      'takes only small and aligned requests',
      ...twice(
        '--filter=blocksize-policy',
        'blocksize-minimum=4k',
        'blocksize-maximum=64k',
        'blocksize-preferred=16k',
        'blocksize-error-policy=error',
      ),
    ],
    ['cannot zero', [], ['--filter=nozero']],
    ['zeroes only by writing', [], ['--filter=nozero', 'zeromode=emulate']],
    ['tells no extents', ...twice('--filter=noextents')],
    [
      'refuses to tell extents',
      ...twice('--filter=error', 'error-extents=EIO', 'error-extents-rate=100%'),
    ],
    [
      'tries again by itself',
      [
        '--filter=retry-request',
        '--filter=error',
        'retry-request-delay=1',
        'retry-request-retries=100',
        'error-pread=EIO',
        'error-pread-rate=3%',
      ],
      [],
    ],
    ['ends with its last client', ...twice('--filter=exitlast')],
    ['serves one request at a time', ...twice('--filter=noparallel', 'serialize=requests')],
  ])('a server that %s is copied from and to', async (_name, source, served) => {
    const report = await copyFaulty(['', source, served], { threads });
    expect(report).toMatchObject({ errors: [], leftOutBytes: 0 });
    expectCopied();
  });

  test('a server that tells nothing of its limits is copied from, when smaller requests are tried', async () => {
    // It refuses what is longer than it likes, without having said so.
    const script = `[ "$3" -le 65536 ] || { echo EINVAL too long >&2; exit 1; }
      dd if=${disk} skip=$4 count=$3 iflag=skip_bytes,count_bytes status=none`;
    const source = await peers.nbdkit(['eval', `get_size=echo ${SIZE}`, `pread=${script}`]);
    const options = { source: source.uri, target, threads, requestSize: 512 * KiB };
    await expect(copy(options)).rejects.toMatchObject({ errno: 'EINVAL' });
    await copy({ ...options, onReadError: 'retry', retry: { backoffMs: 1 } });
    expectCopied();
  });

  describe('a server that is killed and comes back', () => {
    /** Slow enough to be killed in the middle. */
    const slow = ['--filter=delay', 'rdelay=20ms', 'wdelay=20ms'];
    const sizes = { threads, requestSize: 64 * KiB, requests: 2 };
    /** Bytes per second until then, so that it is not done before, however busy the machine is. */
    const rate = 32 * KiB;

    test.each(['retry', 'stop'] as const)(
      'as the source costs a copy with the policy %s nothing',
      async (policy) => {
        let source = await serve(slow, disk);
        const options = { source: source.uri, target, rate, ...sizes, onReadError: policy };
        const job = copy({ ...options, ...(policy === 'retry' && { retry: { backoffMs: 100 } }) });
        const comesBack = async () => {
          await source.stop();
          source = await peers.nbdkit(['file', disk], source);
        };
        job.on('paused', () => void comesBack().then(() => job.resume()));
        await movedSome(job);
        await source.stop('SIGKILL');
        job.setRate(undefined);
        if (policy === 'retry') await comesBack();
        const report = await job;
        expect(report.errors).toEqual([]);
        expectCopied();
      },
    );

    test.each([
      ['retry', true],
      ['stop', true],
      ['retry', false],
      ['stop', false],
    ] as const)(
      'as the target, without what was not flushed, costs a copy with the policy %s nothing (flush: %s)',
      async (policy, flush) => {
        const source = await serve([], disk);
        const memory = ['memory', `${SIZE}`];
        let served = await peers.nbdkit([...slow.slice(0, 1), ...memory, ...slow.slice(1)]);
        const { uri } = served;
        const sides = { source: source.uri, target: uri };
        const options = { ...sides, flush, rate, ...sizes, onWriteError: policy };
        const job = copy({ ...options, ...(policy === 'retry' && { retry: { backoffMs: 100 } }) });
        const comesBack = async () => {
          await served.stop();
          served = await peers.nbdkit(memory, served);
        };
        job.on('paused', () => void comesBack().then(() => job.resume()));
        await movedSome(job);
        await served.stop('SIGKILL');
        job.setRate(undefined);
        if (policy === 'retry') await comesBack();
        await job;
        execFileSync('nbdcopy', [uri, target]);
        expectCopied();
      },
    );

    test.each(['report', 'ignore'] as const)(
      'as the source ends a copy with the policy %s',
      async (policy) => {
        const source = await serve(slow, disk);
        const job = copy({ source: source.uri, target, rate, ...sizes, onReadError: policy });
        const before = readFileSync(target);
        await movedSome(job);
        await source.stop('SIGKILL');
        await expect(job).rejects.toMatchObject({ code: 'ERR_NBD_DISCONNECTED' });
        expect(readFileSync(target).equals(before)).toBe(true);
      },
    );
  });

  test.each(['report', 'retry', 'stop', 'ignore'] as const)(
    'a target disk that is full is met as the policy %s says',
    async (policy) => {
      const mount = join(folder, 'small');
      execFileSync('mkdir', [mount]);
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', mount]);
      try {
        target = join(mount, 'target.raw');
        const retry = { attempts: policy === 'retry' ? 2 : 0, backoffMs: 1 };
        const job = copy({ source: disk, target, threads, onWriteError: policy, retry });
        job.on('paused', (error) => {
          expect(error).toMatchObject({ errno: 'ENOSPC' });
          execFileSync('mount', ['-o', 'remount,size=32m', mount]);
          job.resume();
        });
        if (policy === 'report' || policy === 'retry') {
          await expect(job).rejects.toMatchObject({ code: 'ERR_DEVICE_IO', errno: 'ENOSPC' });
        } else {
          const { errors, leftOutBytes } = await job;
          expect(leftOutBytes > 0).toBe(policy === 'ignore');
          expectCopied(errors);
        }
      } finally {
        execFileSync('umount', [mount]);
      }
    },
  );
});

test('a flush that fails is not made again into a success', async () => {
  // It drops all that was not flushed, once, and says so once.
  const cache = join(folder, 'cache.raw');
  writeFileSync(cache, Buffer.alloc(SIZE));
  writeFileSync(target, Buffer.alloc(SIZE));
  const trigger = join(folder, 'trigger');
  const served = () =>
    peers.nbdkit([
      'eval',
      `get_size=echo ${SIZE}`,
      `pread=dd if=${cache} skip=$4 count=$3 iflag=skip_bytes,count_bytes status=none`,
      `pwrite=dd of=${cache} seek=$4 oflag=seek_bytes conv=notrunc status=none`,
      'can_write=exit 0',
      'can_flush=exit 0',
      `flush=if [ -e ${trigger} ]; then rm ${trigger}; cp ${target} ${cache}; echo EIO lost >&2; exit 1; fi; cp ${cache} ${target}`,
    ]);
  const { uri } = await served();
  for (const onWriteError of ['report', 'ignore', 'retry', 'stop'] as const) {
    writeFileSync(trigger, '');
    const retry = { backoffMs: 1, ...(onWriteError !== 'retry' && { attempts: 0 }) };
    const job = copy({ source: disk, target: uri, onWriteError, retry });
    job.on('paused', () => job.resume());
    if (onWriteError === 'report' || onWriteError === 'ignore') {
      await expect(job).rejects.toMatchObject({ code: 'ERR_NBD_REMOTE', errno: 'EIO' });
    } else {
      await job;
      expectCopied();
    }
    truncateSync(target, 0);
    truncateSync(target, SIZE);
    execFileSync('cp', [target, cache]);
  }
  rmSync(cache);
});

function hex(offset: number, length: number, status: string): string {
  return `0x${offset.toString(16)} 0x${length.toString(16)} ${status}`;
}

function twice(...args: string[]): [readonly string[], readonly string[]] {
  return [args, args];
}

async function movedSome(job: ReturnType<typeof copy>): Promise<void> {
  let ended = false;
  const end = () => {
    ended = true;
  };
  job.then(end, end);
  while (!ended && job.progress().movedBytes < 32 * KiB) await sleep(5);
}
