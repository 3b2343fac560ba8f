import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { Arena, Bitmap, BitmapFile, DirtyBitmaps } from 'lacuna/bitmap';
import { beforeEach, describe, expect, it } from 'vitest';
import { type Device, openDevice } from '#dist/block/index.js';
import { type CopyOptions, copy } from '#dist/copy/index.js';
import { Checkpoints } from '#dist/copy/resume/checkpoints.js';
import {
  type CopyMoment,
  ResumeFile,
  type ResumeFileOperations,
} from '#dist/copy/resume/resume-file.js';
import { LacunaError } from '#dist/errors/index.js';
import { fileOperations } from '#dist/files/index.js';
import { contentOf, fakeDevice, pattern } from '../../../support/fake-device.js';
import fc from '../../../support/fast-check.js';
import { stepsOr } from '../../../support/long-run.js';
import { temporaryFolder } from '../../../support/temporary-folder.js';
import { VolatileDisk, type VolatileRequest } from '../../../support/volatile-disk.js';
import { watchReads } from '../../../support/watched-device.js';
import { FailingDisk, PowerCut } from '../../../unit/bitmap/power-cut.js';

const FILES = new URL('../../../../dist/files/index.js', import.meta.url).href;
const RESUME_FILE = new URL('../../../../dist/copy/resume/resume-file.js', import.meta.url).href;
const PAGE = 4096;
const PAGES = 48;
const SIZE = PAGES * PAGE - 1000;
/** What memory allocates at once, and so calls data. */
const MEMORY_PAGE = 65536;

const top = temporaryFolder();
let folder: string;
let file: string;
beforeEach(() => {
  folder = mkdtempSync(join(top, 'test-'));
  file = join(folder, 'resume');
});

/** The bytes that a resume file does not count as remaining. */
function confirmedBy(path: string): Bitmap {
  const bitmaps = BitmapFile.open(path, { size: SIZE, readOnly: true });
  const [data, zero] = [bitmaps.load('data'), bitmaps.load('zero')];
  const confirmed = new Bitmap({ size: SIZE, granularity: data.granularity });
  confirmed.setAll();
  confirmed.subtract(data);
  confirmed.subtract(zero);
  bitmaps.close();
  return confirmed;
}

/** A moment at which a copy comes to grief. */
interface Grief {
  /** The request to the target at which it happens, counted over all kinds. */
  at: number;
  how: 'fails' | 'is cancelled';
  powerCut: boolean;
}

const griefs = fc.array(
  fc.record({
    at: fc.integer({ min: 0, max: 70 }),
    how: fc.constantFrom<Grief['how']>('fails', 'is cancelled'),
    powerCut: fc.boolean(),
  }),
  { maxLength: 5 },
);
/** Some copies go on by themselves after a failure. */
const retries = fc.constantFrom({ attempts: 0 }, { attempts: 1, backoffMs: 1 });
const pages = fc.uniqueArray(fc.integer({ min: 0, max: PAGES - 1 }), { maxLength: PAGES });

const TARGETS = {
  'knows nothing': {},
  'has a fast zero': { fastZero: true },
  'is known to be zero': { knownZero: true },
};

async function fill(device: Device, where: readonly number[], seed: number): Promise<void> {
  for (const page of where) {
    const offset = page * PAGE;
    await device.write(offset, pattern(Math.min(PAGE, SIZE - offset), seed + page));
  }
}

/** Copies until it succeeds, with one grief after another, and checks what is confirmed after each. */
async function copyThrough(
  plagues: readonly Grief[],
  { options, disk, plague }: { options: CopyOptions; disk: VolatileDisk; plague: Plague },
): Promise<void> {
  const want = await contentOf(options.source as Device);
  let confirmed: Bitmap | undefined;
  for (const grief of [...plagues, undefined]) {
    const abort = new AbortController();
    plague.grief = grief;
    plague.abort = abort;
    plague.seen = 0;
    const job = copy({ ...options, resume: file, signal: abort.signal });
    const outcome = await job.then(
      () => 'done',
      (error) => (error as LacunaError).code,
    );
    for (const { offset, length } of disk.writes.splice(0)) {
      expect(confirmed?.countIn(offset, length) ?? 0, `confirmed at ${offset}`).toBe(0);
    }
    if (grief === undefined || outcome === 'done') {
      expect(outcome).toBe('done');
      break;
    }
    if (grief.powerCut) disk.cutPower();
    if (!existsSync(file)) continue;
    confirmed = confirmedBy(file);
    expect(job.resumable?.remainingBytes).toBe(SIZE - confirmed.dirtyBytes);
    const base = (options.bitmap as Bitmap | undefined)?.snapshot();
    base?.intersect(confirmed);
    for (const { offset, length } of (base ?? confirmed).ranges()) {
      const got = disk.bytes.subarray(offset, offset + length);
      const same = Buffer.compare(got, want.subarray(offset, offset + length)) === 0;
      expect(same, `confirmed at ${offset}`).toBe(true);
    }
  }
  expect(existsSync(file)).toBe(false);
}

/** What makes the requests of a disk fail. */
class Plague {
  grief: Grief | undefined;
  abort = new AbortController();
  seen = 0;

  strike(kind: VolatileRequest): void {
    if (kind === 'read' || this.grief === undefined) return;
    if (this.seen++ !== this.grief.at) return;
    if (this.grief.how === 'is cancelled') this.abort.abort();
    else throw new LacunaError('ERR_DEVICE_IO', `the ${kind} failed`, { errno: 'EIO' });
  }
}

describe.each(Object.entries(TARGETS))('a copy that is resumed to a target that %s', (_, can) => {
  const isZero = 'knownZero' in can;
  const small = { requestSize: PAGE, requests: 3, threads: 0 };

  it('loses nothing and moves nothing twice, whenever it is stopped', async () => {
    await fc.assert(
      fc.asyncProperty(pages, griefs, retries, async (data, plagues, retry) => {
        rmSync(file, { force: true });
        const plague = new Plague();
        const content = isZero ? new Uint8Array(SIZE) : pattern(SIZE, 99);
        const before = (kind: VolatileRequest) => plague.strike(kind);
        const disk = new VolatileDisk({ content, capabilities: can, before });
        const source = fakeDevice(SIZE);
        await fill(source, data, 1);
        // The first run alone knows that the target is zero: the device forgets it with the first write.
        const options = { source, target: disk.device, retry, ...small };
        await copyThrough(plagues, { options, disk, plague });
        expect(Buffer.compare(disk.bytes, await contentOf(source))).toBe(0);
      }),
      { numRuns: stepsOr(30) },
    );
  });

  it('touches nothing that was clean in its bitmap', async () => {
    await fc.assert(
      fc.asyncProperty(pages, pages, griefs, async (data, dirty, plagues) => {
        rmSync(file, { force: true });
        const plague = new Plague();
        const before = (kind: VolatileRequest) => plague.strike(kind);
        const old = pattern(SIZE, 99);
        const disk = new VolatileDisk({ content: old, before });
        const source = fakeDevice(SIZE);
        await fill(source, data, 1);
        const bitmap = new Bitmap({ size: SIZE, granularity: PAGE });
        bitmap.setMany(dirty.map((page) => page * PAGE));
        const want = Buffer.from(old);
        const now = await contentOf(source);
        for (const { offset, length } of bitmap.ranges()) {
          want.set(now.subarray(offset, offset + length), offset);
        }
        const options = { source, target: disk.device, bitmap, ...small };
        await copyThrough(plagues, { options, disk, plague });
        expect(Buffer.compare(disk.bytes, want)).toBe(0);
      }),
      { numRuns: stepsOr(15) },
    );
  });
});

describe('a copy that is resumed', () => {
  it('zeroes nothing over what was done', async () => {
    const source = fakeDevice(SIZE);
    // Between two pages of memory that are zero.
    await fill(source, [MEMORY_PAGE / PAGE + 3], 1);
    let zeroes = 0;
    const disk = new VolatileDisk({
      content: pattern(SIZE, 99),
      capabilities: { fastZero: true },
      before: (kind) => {
        if (kind === 'zero' && ++zeroes === 2) throw new LacunaError('ERR_DEVICE_IO', 'not now');
      },
    });
    const options = { source, target: disk.device, resume: file, requestSize: PAGE, threads: 0 };
    await expect(copy(options)).rejects.toMatchObject({ code: 'ERR_DEVICE_IO' });
    await copy(options);
    expect(Buffer.compare(disk.bytes, await contentOf(source))).toBe(0);
  });
});

/** Something to wait for until somebody opens it. */
function gate() {
  let open!: () => void;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

const SMALL = { requestSize: PAGE, requests: 2, threads: 0, detectZeroes: 'on' as const };

/** A copy between two files that is stopped half way; what goes on with it. */
async function stopHalfWay(change: Partial<CopyOptions> = {}): Promise<CopyOptions> {
  const source = join(folder, 'source.raw');
  const target = join(folder, 'target.raw');
  writeFileSync(source, pattern(SIZE));
  const options = { source, target, resume: file, ...SMALL, ...change };
  const abort = new AbortController();
  await using device = await openDevice(source);
  const halting = watchReads(device, (count) => {
    if (count > PAGES / 2) abort.abort();
  });
  const job = copy({ ...options, source: halting, signal: abort.signal });
  await expect(job).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  expect(job.resumable?.file).toBe(file);
  expect(job.resumable?.remainingBytes).toBeGreaterThan(0);
  return options;
}

const names = () => readdirSync(folder).sort();
const partial = () => join(folder, names().find((name) => name.includes('.partial-'))!);

describe('a resume file', () => {
  it('lets a copy of files go on, and is gone when that is complete', async () => {
    const options = await stopHalfWay();
    expect(names()).toEqual([
      'resume',
      'source.raw',
      expect.stringMatching(/^target.raw.partial-/),
    ]);
    const report = await copy(options);
    expect(report.resumedBytes).toBeGreaterThan(SIZE / 4);
    expect(report.movedBytes).toBe(SIZE - report.resumedBytes);
    expect(report.skippedBytes).toBe(0);
    expect(readFileSync(join(folder, 'target.raw')).equals(pattern(SIZE))).toBe(true);
    expect(names()).toEqual(['source.raw', 'target.raw']);
  });

  it('finds the target by another name of its folder, whole or not', async () => {
    symlinkSync(folder, join(folder, 'link'));
    const options = await stopHalfWay({ target: join(folder, 'link', 'target.raw') });
    // As if the run had died when the file had its name, and before this was noted.
    renameSync(partial(), join(folder, 'target.raw'));
    await copy({ ...options, target: join(folder, 'target.raw') });
    expect(names()).toEqual(['link', 'source.raw', 'target.raw']);
  });

  it('counts in the progress what earlier runs did', async () => {
    const options = await stopHalfWay();
    const job = copy(options);
    await job;
    const { doneBytes, totalBytes, resumedBytes } = job.progress();
    expect(doneBytes).toBe(SIZE);
    expect(totalBytes).toBe(SIZE);
    expect(resumedBytes).toBeGreaterThan(0);
  });

  it('is not left behind by a copy that failed before it began', async () => {
    const bad = copy({ source: fakeDevice(SIZE), target: fakeDevice(SIZE - 1), resume: file });
    await expect(bad).rejects.toMatchObject({ code: 'ERR_COPY_MISMATCH' });
    expect(names()).toEqual([]);
  });

  it('may be empty, and is begun then', async () => {
    writeFileSync(file, '');
    await copy({ source: fakeDevice(SIZE), target: fakeDevice(SIZE), resume: file });
    expect(names()).toEqual([]);
  });

  it.each(['noted', 'made'])(
    'finds what a run has %s that was killed before it could note which file that is',
    async (moment) => {
      writeFileSync(join(folder, 'source.raw'), pattern(SIZE));
      writeFileSync(join(folder, 'target.raw.partial-0123456789abcdef01234567'), 'precious');
      const code = `
        const { ResumeFile } = await import(${JSON.stringify(RESUME_FILE)});
        const { Replacement } = await import(${JSON.stringify(FILES)});
        const file = await ResumeFile.open(${JSON.stringify(file)});
        const planned = Replacement.plan(${JSON.stringify(join(folder, 'target.raw'))}, 'resumable');
        await file.plan(planned);
        if (${moment === 'made'}) Replacement.create(planned.name, { planned: planned.path });
        process.kill(process.pid, 'SIGKILL');`;
      spawnSync(process.execPath, ['--input-type=module', '-e', code]);
      expect(names()).toHaveLength(moment === 'made' ? 4 : 3);
      const [source, target] = [join(folder, 'source.raw'), join(folder, 'target.raw')];
      const { warnings } = await copy({ source, target, resume: file });
      expect(warnings).toEqual([]);
      expect(readFileSync(target).equals(pattern(SIZE))).toBe(true);
      expect(names()).toEqual([
        'source.raw',
        'target.raw',
        'target.raw.partial-0123456789abcdef01234567',
      ]);
    },
  );

  it('removes nothing that is not a file of ours, whatever it names', async () => {
    const [source, target] = [join(folder, 'source.raw'), join(folder, 'target.raw')];
    writeFileSync(source, pattern(SIZE));
    writeFileSync(join(folder, 'precious'), 'precious');
    const opened = await ResumeFile.open(file);
    await opened.plan({ path: join(folder, 'precious'), name: target });
    const noted = readFileSync(file);
    opened.close();
    writeFileSync(file, noted);
    await copy({ source, target, resume: file });
    expect(names()).toEqual(['precious', 'source.raw', 'target.raw']);
  });

  it('may be deleted: what was made until then stays, and the copy begins again', async () => {
    const options = await stopHalfWay();
    const left = basename(partial());
    rmSync(file);
    const report = await copy(options);
    expect(report.resumedBytes).toBe(0);
    expect(names()).toEqual(['source.raw', 'target.raw', left]);
    expect(readFileSync(join(folder, 'target.raw')).equals(pattern(SIZE))).toBe(true);
  });

  it('sees that all was done by a run that ended between the last two steps', async () => {
    const options = await stopHalfWay();
    const saved = readFileSync(file);
    await copy(options);
    writeFileSync(file, saved);
    const report = await copy(options);
    expect(report).toMatchObject({ movedBytes: 0, zeroedBytes: 0, resumedBytes: SIZE });
    expect(names()).toEqual(['source.raw', 'target.raw']);
  });

  it('is used by one copy at a time', async () => {
    const options = await stopHalfWay();
    const device = await openDevice(join(folder, 'source.raw'));
    const [isReading, isRefused] = [gate(), gate()];
    const source = watchReads(device, async () => {
      isReading.open();
      await isRefused.opened;
    });
    const first = copy({ ...options, source });
    await isReading.opened;
    await expect(copy(options)).rejects.toMatchObject({ code: 'ERR_RESUME_BUSY' });
    isRefused.open();
    await first;
    await device.close();
  });

  it('stays locked while it is replaced', async () => {
    const first = await ResumeFile.open(file);
    await first.write(momentOf(1));
    await first.write(momentOf(2));
    await expect(ResumeFile.open(file)).rejects.toMatchObject({ code: 'ERR_RESUME_BUSY' });
    first.close();
    (await ResumeFile.open(file)).close();
  });

  it('does not stay locked by what has died', async () => {
    const child = spawnSync(process.execPath, [
      '--input-type=module',
      '-e',
      `const { ResumeFile } = await import(${JSON.stringify(RESUME_FILE)});
       await ResumeFile.open(${JSON.stringify(file)});
       process.kill(process.pid, 'SIGKILL');`,
    ]);
    expect(child.signal).toBe('SIGKILL');
    expect(names()).toEqual(['resume']);
    await copy({ source: fakeDevice(SIZE), target: fakeDevice(SIZE), resume: file });
  });

  it.each(['source.raw', 'target.raw', 'there.raw', 'link', 'folder/target.raw'])(
    'cannot be the disk %s',
    async (name) => {
      const [source, target] = [join(folder, 'source.raw'), join(folder, 'target.raw')];
      writeFileSync(source, '');
      writeFileSync(join(folder, 'there.raw'), '');
      symlinkSync('target.raw', join(folder, 'link'));
      symlinkSync('.', join(folder, 'folder'));
      const before = names();
      const to = name === 'there.raw' ? join(folder, name) : target;
      const run = copy({ source, target: to, resume: join(folder, name) });
      await expect(run).rejects.toThrow(RangeError);
      expect(names()).toEqual(before);
    },
  );

  it('does not go with a digest of what is moved', () => {
    const [source, target] = [fakeDevice(SIZE), fakeDevice(SIZE)];
    expect(() => copy({ source, target, resume: file, digest: true })).toThrow(TypeError);
  });
});

describe('a copy refuses to go on', () => {
  const cases: Record<string, [RegExp, (options: CopyOptions) => unknown]> = {
    'from a source of another size': [
      /another size/,
      () => writeFileSync(join(folder, 'source.raw'), pattern(SIZE + 1)),
    ],
    'from a source that was changed': [
      /source's modification time was 2\d{3}-.*, and is 1970-01-01T00:00:01.000000000Z now/,
      () => utimesSync(join(folder, 'source.raw'), 1, 1),
    ],
    'from a file that took the place of the source': [
      /source's inode/,
      () => {
        const source = join(folder, 'source.raw');
        const { atime, mtime } = statSync(source);
        renameSync(source, `${source}.old`);
        writeFileSync(source, pattern(SIZE));
        utimesSync(source, atime, mtime);
      },
    ],
    'from another source': [
      /the source was .*source.raw when the copy began, and is .*other.raw/,
      (options) => {
        writeFileSync(join(folder, 'other.raw'), pattern(SIZE));
        return { ...options, source: join(folder, 'other.raw') };
      },
    ],
    'to another target': [
      /the target was .*target.raw when the copy began, and is .*other.raw now/,
      (options) => ({ ...options, target: join(folder, 'other.raw') }),
    ],
    'to a target that is written in place': [
      /the target was .*target.raw when the copy began/,
      (options) => ({ ...options, target: fakeDevice(SIZE) }),
    ],
    'into the file that is there, instead of a new one': [
      /began in a new file, .*partial-\w+, and .*target.raw itself would be written now \(--in-place/,
      (options) => {
        writeFileSync(join(folder, 'target.raw'), pattern(SIZE, 5));
        return { ...options, inPlace: true };
      },
    ],
    'to a target of another format': [
      /target's format was raw when the copy began, and is qcow2 now/,
      (options) => ({ ...options, targetFormat: 'qcow2' }),
    ],
    'with an unfinished file that was cut': [
      /unfinished copy, has 1 bytes now/,
      () => truncateSync(partial(), 1),
    ],
    'with an unfinished file that has become longer': [
      /which is not the size that it was made with/,
      () => truncateSync(partial(), 2 * SIZE),
    ],
    'with an unfinished file that is gone': [/is gone or is another file/, () => rmSync(partial())],
    'with an unfinished file that was replaced': [
      /is gone or is another file/,
      () => {
        renameSync(partial(), join(folder, 'elsewhere'));
        writeFileSync(partialName, new Uint8Array(SIZE));
      },
    ],
    'with an unfinished file that is a link': [
      /is gone or is another file/,
      () => {
        renameSync(partial(), join(folder, 'elsewhere'));
        symlinkSync(join(folder, 'elsewhere'), partialName);
      },
    ],
    'with a bitmap, where all was to be copied': [
      /choice of what to copy was all/,
      (options) => {
        writeFileSync(join(folder, 'target.raw'), pattern(SIZE));
        return { ...options, bitmap: new Bitmap({ size: SIZE, granularity: PAGE }) };
      },
    ],
  };
  let partialName: string;

  it.each(Object.entries(cases))('%s, and says so', async (_, [message, change]) => {
    const options = await stopHalfWay();
    partialName = partial();
    const before = readFileSync(file);
    const now = (change(options) as CopyOptions | undefined) ?? options;
    const error = await copy(now).then(
      () => undefined,
      (failure) => failure as LacunaError,
    );
    expect(error).toMatchObject({ code: 'ERR_RESUME_MISMATCH', device: file });
    expect(error?.message).toMatch(message);
    expect(error?.message).toContain(`delete ${file} to begin again`);
    expect(readFileSync(file).equals(before), 'the file is as it was').toBe(true);
  });

  it('with another bitmap', async () => {
    writeFileSync(join(folder, 'target.raw'), pattern(SIZE, 5));
    const bitmap = new Bitmap({ size: SIZE, granularity: PAGE });
    bitmap.setAll();
    const options = await stopHalfWay({ bitmap });
    bitmap.reset(0, PAGE);
    await expect(copy(options)).rejects.toMatchObject({
      code: 'ERR_RESUME_MISMATCH',
      message: expect.stringMatching(/choice of what to copy was bitmap/),
    });
    bitmap.set(0, PAGE);
    await copy(options);
    expect(readFileSync(join(folder, 'target.raw')).equals(pattern(SIZE))).toBe(true);
  });

  it('from a file that is no resume file, or of another version', async () => {
    const options = await stopHalfWay();
    const disk = { size: SIZE, identity: '{"lacuna-resume":1}' };
    const bitmaps = new DirtyBitmaps({ size: SIZE });
    for (const write of [
      () => writeFileSync(file, 'something else'),
      () => {
        rmSync(file);
        BitmapFile.open(file, disk).close(bitmaps);
      },
    ]) {
      write();
      const before = readFileSync(file);
      await expect(copy(options)).rejects.toMatchObject({ code: 'ERR_RESUME_CORRUPT' });
      expect(readFileSync(file).equals(before)).toBe(true);
    }
  });
});

/** The moment of a copy that a file holds, in numbers. */
async function momentIn(path: string): Promise<number[] | undefined> {
  const opened = await ResumeFile.open(path);
  try {
    const moment = opened.read({ size: SIZE, arena: Arena.default });
    if (moment === undefined) return undefined;
    const { data, zero, state } = moment;
    const numbers = [data.dirtyBytes, zero.dirtyBytes, state.totalBytes];
    data.free();
    zero.free();
    return numbers;
  } finally {
    opened.close();
  }
}

function momentOf(granules: number): CopyMoment {
  const data = new Bitmap({ size: SIZE, granularity: PAGE });
  const zero = new Bitmap({ size: SIZE, granularity: PAGE });
  data.set(0, granules * PAGE);
  zero.set(40 * PAGE, PAGE);
  const state = { binding: { source: 'x' }, targetIsZero: false, plannedBytes: SIZE };
  return { data, zero, state: { ...state, totalBytes: granules } };
}

describe('a resume file that was damaged', () => {
  it('is refused, whichever of its bytes are missing or changed', async () => {
    const opened = await ResumeFile.open(file);
    await opened.write(momentOf(7));
    opened.close();
    const whole = readFileSync(file);
    expect(await momentIn(file)).toEqual([7 * PAGE, PAGE, 7]);
    for (let length = 1; length < whole.length; length++) {
      writeFileSync(file, whole.subarray(0, length));
      await expect(momentIn(file)).rejects.toMatchObject({ code: 'ERR_RESUME_CORRUPT' });
    }
    for (let at = 0; at < whole.length; at++) {
      const bytes = Uint8Array.from(whole);
      bytes[at] ^= 1 << (at % 8);
      writeFileSync(file, bytes);
      await expect(momentIn(file), `byte ${at}`).rejects.toMatchObject({
        code: expect.stringMatching(/^ERR_RESUME_(CORRUPT|MISMATCH)$/),
      });
    }
  });

  it('holds the last moment or the one before, whenever the power fails', async () => {
    let ended = false;
    for (let cutAt = 1; !ended; cutAt++) {
      const path = join(folder, `cut-${cutAt}`);
      const disk = new FailingDisk(cutAt, []);
      const opened = await ResumeFile.open(path, disk);
      let written = 0;
      const write = async () => {
        for (; written < 3; written++) await opened.write(momentOf(written + 1));
      };
      ended = await write().then(
        () => true,
        (error) => {
          if (error instanceof PowerCut) return false;
          throw error;
        },
      );
      opened.close();
      for (const left of disk.leftovers(path)) {
        const leftover = join(folder, 'leftover');
        writeFileSync(leftover, left ?? '');
        const [, , total = 0] = (await momentIn(leftover)) ?? [];
        expect([written, written + 1], `cut at step ${cutAt}`).toContain(total);
      }
    }
  });

  it('stays as it was when it cannot be replaced', async () => {
    const opened = await ResumeFile.open(file);
    await opened.write(momentOf(3));
    opened.close();
    const failing = new FailingDisk(2, [file]);
    const again = await ResumeFile.open(file, failing);
    await expect(again.write(momentOf(4))).rejects.toBeInstanceOf(PowerCut);
    again.close();
    expect(await momentIn(file)).toEqual([3 * PAGE, PAGE, 3]);
  });
});

describe('checkpoints', () => {
  /** Checkpoints of a copy of which nothing is done yet, and what became of them. */
  async function setUp(flush: () => Promise<void>, operations?: ResumeFileOperations) {
    const opened = await ResumeFile.open(file, operations);
    const { state, ...remains } = momentOf(30);
    const failures: unknown[] = [];
    const failed = (error: unknown) => failures.push(error);
    const checkpoints = new Checkpoints({ file: opened, state, remains, flush, failed });
    await checkpoints.begin();
    const dirtyBytes = async () => {
      opened.close();
      return (await momentIn(file))?.[0];
    };
    return { checkpoints, remains, failures, dirtyBytes };
  }

  it('say what remained before the flush began, whatever is completed meanwhile', async () => {
    let during = () => {};
    const { checkpoints, remains, dirtyBytes } = await setUp(async () => during());
    remains.data.reset(0, 10 * PAGE);
    during = () => {
      remains.data.reset(0, 20 * PAGE);
      // No other follows, however late somebody looks.
      void checkpoints.end();
    };
    await expect.poll(() => checkpoints.remainingBytes).toBe(21 * PAGE);
    await checkpoints.end();
    expect(await dirtyBytes()).toBe(20 * PAGE);
  });

  it('are not made of a flush that failed, nor of any after it', async () => {
    let [failing, flushes] = [false, 0];
    const { checkpoints, remains, failures, dirtyBytes } = await setUp(async () => {
      flushes++;
      if (failing) throw new LacunaError('ERR_DEVICE_IO', 'lost', { errno: 'EIO' });
    });
    failing = true;
    remains.data.reset(0, 10 * PAGE);
    await expect.poll(() => failures).toHaveLength(1);
    failing = false;
    remains.data.reset(0, 20 * PAGE);
    await checkpoints.keep();
    expect(flushes).toBe(2);
    expect(checkpoints.remainingBytes).toBe(31 * PAGE);
    expect(await dirtyBytes()).toBe(30 * PAGE);
  });

  it('go on after one that could not be written, with a warning', async () => {
    let failing = false;
    const { checkpoints, remains, failures, dirtyBytes } = await setUp(async () => {}, {
      ...fileOperations,
      sync: (fd) => {
        if (failing) throw Object.assign(new Error('full'), { code: 'ENOSPC' });
        fileOperations.sync(fd);
      },
    });
    failing = true;
    remains.data.reset(0, 10 * PAGE);
    await expect.poll(() => checkpoints.warnings).toHaveLength(1);
    expect(checkpoints.warnings[0]).toMatch(/resume file .* \(ENOSPC\): there is no space/);
    failing = false;
    await expect.poll(() => checkpoints.remainingBytes).toBe(21 * PAGE);
    await checkpoints.end();
    expect(failures).toEqual([]);
    expect(await dirtyBytes()).toBe(20 * PAGE);
  });

  it('end at once when a thread was lost, and keep their hands off its memory', async () => {
    let release = () => {};
    let held = Promise.resolve();
    let flushes = 0;
    const { checkpoints, remains, dirtyBytes } = await setUp(() => {
      flushes++;
      return held;
    });
    held = new Promise((resolve) => {
      release = resolve;
    });
    remains.data.reset(0, 10 * PAGE);
    await expect.poll(() => flushes).toBe(2);
    checkpoints.abort();
    release();
    await checkpoints.keep();
    expect(await dirtyBytes()).toBe(30 * PAGE);
  });
});
