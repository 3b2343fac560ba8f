/** What a report says of the bytes that were left alone. */
import { describe, expect, it } from 'vitest';
import { Bitmap } from '#dist/bitmap/index.js';
import { copy } from '#dist/copy/index.js';
import { fakeDevice, pattern } from '../../support/fake-device.js';

const PAGE = 64 * 1024;
const SIZE = 16 * PAGE;
const { capabilities } = fakeDevice(1);
const UNKNOWN = {
  capabilities: { ...capabilities, knownZero: false, fastZero: false, contexts: [] },
};

/** Data in the first four pages, of which the last is zero, and holes behind. */
async function makeSource() {
  const source = fakeDevice(SIZE, { capabilities: { ...capabilities, exactStatus: false } });
  await source.write(0, pattern(3 * PAGE));
  await source.write(3 * PAGE, new Uint8Array(PAGE));
  return source;
}

describe('what was left alone', () => {
  it('is what reads as zero on both sides, where the target is known to', async () => {
    const { totals, skipped } = await copy({
      source: await makeSource(),
      target: fakeDevice(SIZE),
    });
    expect(totals?.dataBytes).toBe(4 * PAGE);
    expect(skipped).toEqual({ cleanBytes: 0, zeroBytes: 13 * PAGE });
  });

  it('is nothing where all of the target had to be written', async () => {
    const target = fakeDevice(SIZE, UNKNOWN);
    const { skipped, skippedBytes } = await copy({ source: await makeSource(), target });
    expect([skippedBytes, skipped]).toEqual([0, { cleanBytes: 0, zeroBytes: 0 }]);
  });

  it('is what is clean, where a part is copied', async () => {
    const bitmap = new Bitmap({ size: SIZE, granularity: PAGE });
    bitmap.set(2 * PAGE, 8 * PAGE);
    const source = await makeSource();
    const known = await copy({ source, target: fakeDevice(SIZE), bitmap });
    expect(known.skipped).toEqual({ cleanBytes: 8 * PAGE, zeroBytes: 7 * PAGE });
    const unknown = await copy({ source, target: fakeDevice(SIZE, UNKNOWN), bitmap });
    expect(unknown.skipped).toEqual({ cleanBytes: 8 * PAGE, zeroBytes: 0 });
  });
});
