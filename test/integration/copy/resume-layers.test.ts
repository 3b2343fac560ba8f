/** A resume file binds every file below the source and the target, not only the one that is named. */
import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type CopyOptions, copy, createQcow2, type DeviceDescription, openDevice } from 'lacuna';
import { Bitmap } from 'lacuna/bitmap';
import { beforeEach, describe, expect, it } from 'vitest';
import { contentOf, pattern } from '../../support/fake-device.js';
import { temporaryFolder } from '../../support/temporary-folder.js';
import { watchReads } from '../../support/watched-device.js';

const PAGE = 4096;
const CLUSTER = 65536;
const SIZE = 16 * CLUSTER;

const top = temporaryFolder();
let folder: string;
const at = (name: string) => join(folder, name);
beforeEach(() => {
  folder = mkdtempSync(join(top, 'test-'));
});

/** Stops a copy half way. */
async function stopHalfWay(options: Omit<CopyOptions, 'resume'>): Promise<CopyOptions> {
  const { source } = options;
  const device = await openDevice(source as string | DeviceDescription);
  const abort = new AbortController();
  const [half, resume] = [SIZE / PAGE / 2, at('resume')];
  const how = { requestSize: PAGE, requests: 2, threads: 0, detectZeroes: 'on' as const, resume };
  const halting = watchReads(device, (count) => {
    if (count > half) abort.abort();
  });
  const job = copy({ ...options, ...how, source: halting, signal: abort.signal });
  await expect(job).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  await device.close();
  expect(job.resumable?.remainingBytes).toBeGreaterThan(0);
  return { ...options, ...how };
}

async function write(source: string | DeviceDescription, seed: number): Promise<void> {
  await using device = await openDevice(source, { writable: true });
  await device.write(0, pattern(SIZE, seed));
}

const image = (name: string) => {
  return { driver: 'qcow2', file: { driver: 'file', filename: at(name) } } as const;
};

/** Puts a copy of a file in its place, as it was to the nanosecond that `utimes` can say. */
function replace(name: string): void {
  const { atime, mtime } = statSync(at(name));
  renameSync(at(name), at(`${name}.old`));
  copyFileSync(at(`${name}.old`), at(name));
  utimesSync(at(name), atime, mtime);
}

async function refusal(options: CopyOptions): Promise<string> {
  const before = readFileSync(at('resume'));
  const error = await copy(options).then(
    () => undefined,
    (failure) => failure as Error,
  );
  expect(error).toMatchObject({ code: 'ERR_RESUME_MISMATCH', device: at('resume') });
  expect(readFileSync(at('resume')).equals(before), 'the notes are as they were').toBe(true);
  return error?.message ?? '';
}

describe('a copy of an image with all that can be below one', () => {
  /** `top.qcow2` with a data file and a snapshot, over `middle.qcow2`, over `base.raw`. */
  async function begin(): Promise<CopyOptions> {
    writeFileSync(at('base.raw'), pattern(SIZE, 1));
    const over = (filename: string, format: 'raw' | 'qcow2') => ({ backing: { filename, format } });
    await createQcow2(at('middle.qcow2'), { size: SIZE, ...over('base.raw', 'raw') });
    const options = { size: SIZE, dataFile: 'top.data', ...over('middle.qcow2', 'qcow2') };
    await createQcow2(at('top.qcow2'), options);
    execFileSync('qemu-img', ['snapshot', '-c', 'first', at('middle.qcow2')]);
    execFileSync('qemu-img', ['snapshot', '-c', 'second', at('middle.qcow2')]);
    return await stopHalfWay({ source: image('top.qcow2'), target: at('target.raw') });
  }

  it('goes on where nothing has changed', async () => {
    const report = await copy(await begin());
    expect(report.resumedBytes).toBeGreaterThan(0);
    expect(readFileSync(at('target.raw')).equals(pattern(SIZE, 1))).toBe(true);
  });

  it.each(['top.qcow2', 'top.data', 'middle.qcow2', 'base.raw'])(
    'is not gone on with when %s was changed, or is another file',
    async (name) => {
      const options = await begin();
      const { atime, mtime } = statSync(at(name));
      utimesSync(at(name), 1, 1);
      expect(await refusal(options)).toMatch(/modification time/);
      utimesSync(at(name), atime, mtime);
      replace(name);
      expect(await refusal(options)).toMatch(/inode/);
    },
  );

  it('is not gone on with at another snapshot, over another backing file, or as a raw disk', async () => {
    const options = await begin();
    const middle = image('middle.qcow2');
    const others: Record<string, DeviceDescription> = {
      'without what is below it': { ...image('top.qcow2'), backing: null },
      'over a snapshot': {
        ...image('top.qcow2'),
        backing: { ...middle, snapshot: 'first' },
      },
      'over the last of the chain': {
        ...image('top.qcow2'),
        backing: { driver: 'file', filename: at('base.raw') },
      },
    };
    for (const [how, source] of Object.entries(others)) {
      expect(await refusal({ ...options, source }), how).toMatch(/the source's chain was/);
    }
  });

  it('of one snapshot is not gone on with from another one', async () => {
    await begin();
    execFileSync('rm', [at('resume')]);
    const source = { ...image('middle.qcow2'), snapshot: 'first' };
    const options = await stopHalfWay({ source, target: at('other.raw') });
    const second = { ...source, snapshot: 'second' };
    expect(await refusal({ ...options, source: second })).toMatch(/snapshot "first".*"second"/);
  });
});

describe('a target', () => {
  it('that was begun as an image is not gone on with as a raw disk, or the other way round', async () => {
    for (const [first, then] of [
      ['qcow2', 'raw'],
      ['raw', 'qcow2'],
    ] as const) {
      writeFileSync(at('source.raw'), pattern(SIZE));
      const source = at('source.raw');
      const options = await stopHalfWay({ source, target: at('t.img'), targetFormat: first });
      expect(await refusal({ ...options, targetFormat: then })).toMatch(/the target's format/);
      await copy(options);
    }
  });

  /** An increment into an image with a data file, over a base. */
  async function increment(): Promise<CopyOptions> {
    writeFileSync(at('source.raw'), pattern(SIZE, 9));
    writeFileSync(at('base.raw'), pattern(SIZE, 1));
    const backing = { filename: 'base.raw', format: 'raw' } as const;
    await createQcow2(at('t.qcow2'), { size: SIZE, backing, dataFile: 't.data' });
    const bitmap = new Bitmap({ size: SIZE, granularity: PAGE });
    bitmap.setAll();
    return await stopHalfWay({ source: at('source.raw'), target: at('t.qcow2'), bitmap });
  }

  it('that is an image written in place is gone on with, whatever that has changed of it', async () => {
    const options = await increment();
    await copy(options);
    await using device = await openDevice(at('t.qcow2'));
    expect(Buffer.compare(await contentOf(device), pattern(SIZE, 9))).toBe(0);
  });

  it.each(['t.qcow2', 't.data', 'base.raw'])(
    'of which %s is another file is not gone on with',
    async (name) => {
      const options = await increment();
      replace(name);
      expect(await refusal(options)).toMatch(/inode/);
    },
  );

  it('whose backing file was changed is not gone on with', async () => {
    const options = await increment();
    utimesSync(at('base.raw'), 1, 1);
    expect(await refusal(options)).toMatch(/modification time of .*base.raw/);
  });

  it('over which another image was copied is not gone on with', async () => {
    const options = await increment();
    const other = {
      size: SIZE,
      clusterSize: 4096,
      dataFile: 't.data',
      dataFileMade: true,
    } as const;
    await createQcow2(at('other.qcow2'), {
      ...other,
      backing: { filename: 'base.raw', format: 'raw' },
    });
    writeFileSync(at('t.qcow2'), readFileSync(at('other.qcow2')));
    expect(await refusal(options)).toMatch(/the target's cluster size was 65536/);
  });

  it('that is below the source may be written, and is gone on with', async () => {
    writeFileSync(at('base.raw'), pattern(SIZE, 1));
    const backing = { filename: 'base.raw', format: 'raw' } as const;
    await createQcow2(at('top.qcow2'), { size: SIZE, backing });
    await write(at('top.qcow2'), 5);
    await using target = await openDevice(at('base.raw'), { writable: true });
    const source = { ...image('top.qcow2'), backing: target.description };
    const options = await stopHalfWay({ source, target, mode: 'top' });
    const report = await copy(options);
    expect(report.resumedBytes).toBeGreaterThan(0);
    expect(Buffer.compare(await contentOf(target), pattern(SIZE, 5))).toBe(0);
    expect(readdirSync(folder).sort()).toEqual(['base.raw', 'top.qcow2']);
  });
});
