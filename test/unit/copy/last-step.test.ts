/** The last step of a copy gives a file its name. What fails there has a code, and leaves a file that is whole. */
import fs, {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { copy, copyFromStream } from '#dist/copy/index.js';
import { LacunaError } from '#dist/errors/index.js';
import { fakeDevice, pattern } from '../../support/fake-device.js';
import { runHere } from '../../support/run-here.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const SIZE = 200_000;
const top = temporaryFolder();
let folder: string;
let target: string;
beforeEach(() => {
  folder = mkdtempSync(join(top, 't-'));
  target = join(folder, 'target.raw');
});
afterEach(() => vi.restoreAllMocks());

const failing = (code: string) => () => {
  throw Object.assign(new Error(code), { code });
};

async function failureOf(work: PromiseLike<unknown>): Promise<LacunaError> {
  return (await work.then(
    () => undefined,
    (error) => error,
  )) as LacunaError;
}

describe('a copy that cannot get its name', () => {
  it('is said to be whole, and where', async () => {
    const source = join(folder, 'source.raw');
    writeFileSync(source, pattern(SIZE));
    writeFileSync(target, 'old');
    vi.spyOn(fs, 'renameSync').mockImplementation(failing('EBUSY'));
    const { code, stderr } = await runHere(['copy', source, target]);
    const [left] = readdirSync(folder).filter((name) => name.includes('.partial-'));
    expect(code).toBe(1);
    expect(stderr).toContain(`is whole in ${join(folder, left)}`);
    expect(stderr).toMatch(/EBUSY.*--in-place.*\(ERR_COPY_UNNAMED\)/);
    expect(stderr).not.toContain('not whole');
    expect(readFileSync(join(folder, left)).equals(pattern(SIZE))).toBe(true);
    expect(readFileSync(target, 'utf8')).toBe('old');
  });

  it('because somebody took it, is whole as well', async () => {
    const source = fakeDevice(SIZE);
    await source.write(0, pattern(SIZE));
    const { read } = source;
    source.read = async (...args) => {
      writeFileSync(target, 'somebody else');
      return await read.apply(source, args);
    };
    const job = copy({ source, target, threads: 0 });
    const error = await failureOf(job);
    expect(error.code).toBe('ERR_FILE_CHANGED');
    const [, path = ''] = /is whole in (\S+):/.exec(error.message) ?? [];
    expect(readFileSync(path).equals(pattern(SIZE))).toBe(true);
    expect(job.unfinished).toBeUndefined();
    expect(readFileSync(target, 'utf8')).toBe('somebody else');
  });

  it('because somebody took the new file away, is nowhere', async () => {
    const source = fakeDevice(SIZE);
    await source.write(0, pattern(SIZE));
    const { read } = source;
    source.read = async (...args) => {
      for (const name of readdirSync(folder)) rmSync(join(folder, name));
      return await read.apply(source, args);
    };
    const job = copy({ source, target, threads: 0 });
    expect(await failureOf(job)).toMatchObject({ code: 'ERR_FILE_CHANGED' });
    expect([job.unfinished, job.partlyWritten]).toEqual([undefined, undefined]);
  });

  it('is whole where it came from a stream, too', async () => {
    vi.spyOn(fs, 'renameSync').mockImplementation(failing('EPERM'));
    const job = copyFromStream(Readable.from([pattern(SIZE)]), target);
    const error = await failureOf(job);
    expect(error).toMatchObject({ code: 'ERR_COPY_UNNAMED', errno: 'EPERM' });
    expect(job.unfinished).toBeUndefined();
    expect(statSync(join(folder, readdirSync(folder)[0])).size).toBe(SIZE);
  });
});

it('a folder that cannot be synced is a warning', async () => {
  const { openSync } = fs;
  vi.spyOn(fs, 'openSync').mockImplementation((path, ...how) => {
    if (path === folder) failing('EACCES')();
    return openSync(path, ...how);
  });
  const source = fakeDevice(SIZE);
  await source.write(0, pattern(SIZE));
  const { warnings } = await copy({ source, target, threads: 0 });
  expect(warnings).toEqual([
    expect.stringMatching(/is whole, but its folder cannot be synced \(EACCES\)/),
  ]);
  expect(readFileSync(target).equals(pattern(SIZE))).toBe(true);
});

it('a mode that the file system refuses is a warning', async () => {
  writeFileSync(target, 'old');
  vi.spyOn(fs, 'fchmodSync').mockImplementation(failing('EPERM'));
  const source = fakeDevice(SIZE);
  await source.write(0, pattern(SIZE));
  const { warnings } = await copy({ source, target, threads: 0 });
  expect(warnings).toEqual([expect.stringMatching(/could not keep its mode \(EPERM\)/)]);
  expect(statSync(target).mode & 0o077).toBe(0);
});

describe('a copy in place', () => {
  it.each([1, SIZE - 1, SIZE, SIZE + 1, 3 * SIZE])(
    'writes into the file that is there, of %d bytes, and gives it the size of the source',
    async (size) => {
      writeFileSync(target, new Uint8Array(size).fill(7));
      const { ino } = statSync(target);
      const source = fakeDevice(SIZE);
      await source.write(SIZE / 2, pattern(SIZE / 2));
      const want = Buffer.concat([Buffer.alloc(SIZE / 2), pattern(SIZE / 2)]);
      const { warnings } = await copy({ source, target, inPlace: true, threads: 0, verify: true });
      expect(warnings).toEqual([]);
      expect(readFileSync(target).equals(want)).toBe(true);
      expect(statSync(target).ino).toBe(ino);
      expect(readdirSync(folder)).toEqual(['target.raw']);
    },
  );

  it('makes a file that is not there as ever, and is not for images that are made anew', async () => {
    const source = fakeDevice(SIZE);
    await source.write(0, pattern(SIZE));
    await copy({ source, target, inPlace: true });
    expect(readFileSync(target).equals(pattern(SIZE))).toBe(true);
    const anew = copy({ source, target, inPlace: true, preallocation: 'full' });
    expect(await failureOf(anew)).toMatchObject({ code: 'ERR_DEVICE_UNSUPPORTED' });
  });

  it.each([0, 5])(
    'that fails after %d pieces says whether the file was changed',
    async (pieces) => {
      writeFileSync(target, new Uint8Array(SIZE).fill(7));
      const source = fakeDevice(SIZE);
      await source.write(0, pattern(SIZE));
      const { read } = source;
      let count = 0;
      source.read = async (...args) => {
        if (++count > pieces) throw new LacunaError('ERR_DEVICE_IO', 'broken', { errno: 'EIO' });
        return await read.apply(source, args);
      };
      const options = { source, target, requestSize: 4096, requests: 1, threads: 0 };
      const job = copy({ ...options, inPlace: true });
      expect(await failureOf(job)).toMatchObject({ code: 'ERR_DEVICE_IO' });
      expect(job.partlyWritten).toBe(pieces === 0 ? undefined : target);
      expect(job.unfinished).toBeUndefined();
    },
  );

  it('goes on with a resume file, in the same file only', async () => {
    writeFileSync(target, new Uint8Array(3 * SIZE).fill(7));
    const source = fakeDevice(SIZE);
    await source.write(0, pattern(SIZE));
    const resume = join(folder, 'resume');
    const abort = new AbortController();
    const { read } = source;
    let count = 0;
    source.read = async (...args) => {
      if (++count > 10) abort.abort();
      return await read.apply(source, args);
    };
    const options = { source, target, resume, requestSize: 4096, requests: 1, threads: 0 };
    const job = copy({ ...options, inPlace: true, signal: abort.signal });
    expect(await failureOf(job)).toMatchObject({ code: 'ERR_ABORTED' });
    const whatWas = readFileSync(target);
    expect(await failureOf(copy(options))).toMatchObject({
      code: 'ERR_RESUME_MISMATCH',
      message: expect.stringMatching(
        /target.raw was written in place when the copy began \(--in-place/,
      ),
    });
    truncateSync(target, 1);
    expect(await failureOf(copy({ ...options, inPlace: true }))).toMatchObject({
      code: 'ERR_RESUME_MISMATCH',
      message: expect.stringContaining('has become shorter'),
    });
    writeFileSync(target, whatWas);
    const report = await copy({ ...options, inPlace: true });
    expect(report.resumedBytes).toBeGreaterThan(0);
    expect(readFileSync(target).equals(pattern(SIZE))).toBe(true);
  });
});
