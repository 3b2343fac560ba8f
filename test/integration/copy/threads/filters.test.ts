/** Copies whose source or target is said with a filter. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { type DeviceDescription, openDevice } from '#dist/block/index.js';
import { compare, copy, copyFromStream } from '#dist/copy/index.js';
import { contentOf, pattern } from '../../../support/fake-device.js';
import { temporaryFolder } from '../../../support/temporary-folder.js';

const SIZE = 4 * 1024 * 1024;
const folder = temporaryFolder();
const source = join(folder, 'source.raw');
const content = pattern(SIZE);
writeFileSync(source, content);

const path = (name: string) => join(folder, name);
const file = (name: string): DeviceDescription => ({ driver: 'file', filename: path(name) });
/** It counts bytes and never waits: one byte in a nanosecond, with a burst of 30 years. */
const counting = (below: DeviceDescription): DeviceDescription => ({
  driver: 'throttle',
  'bytes-per-second': 1e9,
  burst: 1e9,
  file: below,
});

function countedBytes(description: DeviceDescription | undefined): number {
  const { shared } = description as { shared: SharedArrayBuffer };
  return Number(new BigInt64Array(shared)[0]);
}

async function expectContent(of: string): Promise<void> {
  await using device = await openDevice(path(of));
  expect(Buffer.compare(await contentOf(device), content)).toBe(0);
}

describe('a copy through a filter', () => {
  it('makes a raw file that is not there, under its name', async () => {
    await copy({ source, target: counting(file('new.raw')) });
    expect(Buffer.compare(readFileSync(path('new.raw')), content)).toBe(0);
  });

  it.each<[string, (name: string) => DeviceDescription]>([
    ['above the image', (name) => counting({ driver: 'qcow2', file: file(name) })],
    ['below the image', (name) => ({ driver: 'qcow2', file: counting(file(name)) })],
    ['above and below', (name) => counting({ driver: 'qcow2', file: counting(file(name)) })],
  ])('makes a qcow2 image with a filter %s', async (_, target) => {
    await copy({ source, target: target('new.qcow2'), threads: 2 });
    await expectContent('new.qcow2');
  });

  it('makes a compressed image, which grows through the filter', async () => {
    const target: DeviceDescription = { driver: 'qcow2', file: counting(file('small.qcow2')) };
    await copy({ source, target, compress: true });
    await expectContent('small.qcow2');
  });

  it('makes a file of a stream', async () => {
    await copyFromStream(Readable.from([content]), counting(file('streamed.raw')));
    expect(Buffer.compare(readFileSync(path('streamed.raw')), content)).toBe(0);
  });

  it('fits a file that is written in place', async () => {
    writeFileSync(path('short.raw'), 'short');
    await copy({ source, target: counting(file('short.raw')), inPlace: true });
    expect(Buffer.compare(readFileSync(path('short.raw')), content)).toBe(0);
  });

  it('refuses to write over its source', async () => {
    const target = counting(file('source.raw'));
    await expect(copy({ source, target })).rejects.toMatchObject({ code: 'ERR_COPY_MISMATCH' });
    expect(Buffer.compare(readFileSync(source), content)).toBe(0);
  });

  it('goes on where it ended, with another filter or none', async () => {
    const resume = path('state');
    const broken: DeviceDescription = {
      driver: 'error',
      operations: ['read'],
      offset: SIZE / 2,
      file: file('source.raw'),
    };
    const target = path('resumed.raw');
    const first = { source: broken, target, resume, requestSize: 65_536, threads: 1 };
    await expect(copy(first)).rejects.toMatchObject({ errno: 'EIO' });
    await copy({ source: counting(file('source.raw')), target, resume, requestSize: 65_536 });
    expect(Buffer.compare(readFileSync(target), content)).toBe(0);
    expect(existsSync(resume)).toBe(false);
  });
});

describe('what a filter counts', () => {
  it('is one number for all threads of a copy', async () => {
    await using device = await openDevice(counting(file('source.raw')));
    const report = await copy({ source: device, target: path('counted.raw'), threads: 2 });
    expect(report.threads).toBe(2);
    expect(countedBytes(device.description)).toBe(SIZE);
  });

  it('fails one request of all threads, and not one of each', async () => {
    const failing: DeviceDescription = {
      driver: 'error',
      operations: ['read'],
      nth: 2,
      file: file('source.raw'),
    };
    const retried = async (threads: number) => {
      const target = path(`retried-${threads}.raw`);
      const how = { requestSize: 65_536, onReadError: 'retry', retry: { backoffMs: 1 } } as const;
      const { retries } = await copy({ source: failing, target, threads, ...how });
      expect(Buffer.compare(readFileSync(target), content)).toBe(0);
      return retries;
    };
    expect(await retried(2)).toBe(await retried(1));
  });
});

describe('the file of a log', () => {
  const logged = (logFile: string, below: DeviceDescription): DeviceDescription => ({
    driver: 'log',
    'log-file': path(logFile),
    file: below,
  });

  it.each<[string, DeviceDescription, DeviceDescription]>([
    ['the source', file('source.raw'), logged('source.raw', file('other.raw'))],
    ['the target', logged('other.raw', file('source.raw')), file('other.raw')],
    ['the target itself', file('source.raw'), logged('other.raw', file('other.raw'))],
  ])('may not be a file that the copy reads or writes: %s', async (_, from, target) => {
    await expect(copy({ source: from, target })).rejects.toThrow('must name a file of its own');
    expect(existsSync(path('other.raw'))).toBe(false);
    expect(Buffer.compare(readFileSync(source), content)).toBe(0);
  });

  it('may not be a file that a comparison reads', async () => {
    writeFileSync(path('same.raw'), content);
    const a = logged('same.raw', file('source.raw'));
    await expect(compare({ a, b: path('same.raw') })).rejects.toThrow(
      'must name a file of its own',
    );
  });
});
