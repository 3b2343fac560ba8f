import { describe, expect, it } from 'vitest';
import { Bitmap } from '#dist/bitmap/index.js';
import { type PlannedExtent, plan, readExtents } from '#dist/copy/index.js';
import { LacunaError } from '#dist/errors/index.js';
import { Arena } from '#dist/wasm/index.js';
import { contentOf, fakeDevice, pattern } from '../../../support/fake-device.js';
import fc from '../../../support/fast-check.js';

const KIB = 1024;
const PAGE = 64 * KIB;

/** A device that answers its reads in any order, and counts those in flight. */
async function slowDevice(size: number, fail?: (offset: number) => boolean) {
  const memory = fakeDevice(size);
  const load = { inFlight: 0, most: 0, reads: 0 };
  const device = fakeDevice(size, {
    read: async (offset, target) => {
      load.reads++;
      load.most = Math.max(load.most, ++load.inFlight);
      for (let turns = (offset / 4096) % 5; turns >= 0; turns--) await new Promise(setImmediate);
      load.inFlight--;
      if (fail?.(offset)) {
        const place = { offset, length: target.length };
        throw new LacunaError('ERR_DEVICE_IO', 'a bad sector', place);
      }
      await memory.read(offset, target);
    },
    extents: (offset, length) => memory.extents(offset, length),
  });
  return { memory, device, load };
}

async function keep(extents: AsyncIterable<PlannedExtent>) {
  const kept = [];
  for await (const { offset, length, status, data } of extents) {
    kept.push({ offset, length, status, data: data?.slice() });
  }
  return kept;
}

describe('readExtents', () => {
  it('hands out what the plan holds, in order, with the bytes of the source', async () => {
    const PAGES = 24;
    const kinds = fc.array(fc.constantFrom('data', 'zero', 'clean'), {
      minLength: PAGES,
      maxLength: PAGES,
    });
    await fc.assert(
      fc.asyncProperty(
        kinds,
        fc.integer({ min: 1, max: 5 }),
        fc.constantFrom(4, 16, 128),
        async (kinds, requests, requestKib) => {
          const size = PAGES * PAGE - 1000;
          const { memory, device, load } = await slowDevice(size);
          const made = {
            data: new Bitmap({ size, granularity: 512 }),
            zero: new Bitmap({ size, granularity: 512 }),
          };
          for (const [i, kind] of kinds.entries()) {
            const length = Math.min(PAGE, size - i * PAGE);
            if (kind === 'data') await memory.write(i * PAGE, pattern(length, i));
            if (kind !== 'clean') made[kind as 'data' | 'zero'].set(i * PAGE, length);
          }
          const requestSize = requestKib * KIB;
          const content = await contentOf(memory);
          const rebuilt = new Uint8Array(size).fill(255);
          let end = 0;
          for (const extent of await keep(readExtents(device, made, { requests, requestSize }))) {
            const { offset, length, status, data } = extent;
            expect(offset).toBeGreaterThanOrEqual(end);
            end = offset + length;
            expect(data === undefined).toBe(status === 'zero');
            if (data === undefined) rebuilt.fill(0, offset, end);
            else {
              expect(data.length).toBe(length);
              expect(length).toBeLessThanOrEqual(requestSize);
              rebuilt.set(data, offset);
            }
          }
          for (const [i, kind] of kinds.entries()) {
            const [from, to] = [i * PAGE, Math.min(size, (i + 1) * PAGE)];
            const want =
              kind === 'clean' ? new Uint8Array(to - from).fill(255) : content.subarray(from, to);
            expect(Buffer.compare(rebuilt.subarray(from, to), want)).toBe(0);
          }
          expect(load.most).toBeLessThanOrEqual(requests);
          made.data.free();
          made.zero.free();
        },
      ),
      { numRuns: 60 },
    );
  });

  it('hands out zeroes in one piece, however long', async () => {
    const source = fakeDevice(2 ** 50);
    await source.write(2 ** 40, pattern(PAGE));
    const kept = await keep(readExtents(source, await plan({ source })));
    expect(kept.map(({ offset, length, status }) => [offset, length, status])).toEqual([
      [0, 2 ** 40, 'zero'],
      [2 ** 40, PAGE, 'data'],
      [2 ** 40 + PAGE, 2 ** 50 - 2 ** 40 - PAGE, 'zero'],
    ]);
  });

  it('reads ahead no further than it was told, however long the loop takes', async () => {
    const { device, memory, load } = await slowDevice(64 * PAGE);
    await memory.write(0, pattern(64 * PAGE));
    const made = await plan({ source: device });
    const options = { requests: 3, requestSize: PAGE };
    let seen = 0;
    for await (const { data } of readExtents(device, made, options)) {
      for (let i = 0; i < 20; i++) await new Promise(setImmediate);
      expect(data).toHaveLength(PAGE);
      seen++;
      // Three are held at most, the one in hand among them.
      expect(load.reads).toBeLessThanOrEqual(seen + 2);
    }
    expect(seen).toBe(64);
  });

  it('lends its bytes until the loop goes on, and throws when they are asked for later', async () => {
    const { device, memory } = await slowDevice(8 * PAGE);
    await memory.write(0, pattern(8 * PAGE));
    const kept: PlannedExtent[] = [];
    for await (const extent of readExtents(device, await plan({ source: device }))) {
      kept.push(extent);
    }
    expect(() => kept[0].data).toThrow(/lent until/);
    expect(kept[0].length).toBeGreaterThan(0);
  });

  it('ends early without leaving a read or memory behind', async () => {
    const { device, memory, load } = await slowDevice(64 * PAGE);
    await memory.write(0, pattern(64 * PAGE));
    const made = await plan({ source: device });
    const before = Arena.default.usedBytes;
    for await (const { offset } of readExtents(device, made, { requestSize: PAGE })) {
      if (offset === 10 * PAGE) break;
    }
    expect(load.inFlight).toBe(0);
    expect(Arena.default.usedBytes).toBeLessThanOrEqual(before);
    // Nothing is held before the loop begins.
    readExtents(device, made);
    expect(Arena.default.usedBytes).toBeLessThanOrEqual(before);
  });

  it('hands out what comes before a failure, then throws it with its range', async () => {
    const bad = 20 * PAGE;
    const { device, memory, load } = await slowDevice(64 * PAGE, (offset) => offset === bad);
    await memory.write(0, pattern(64 * PAGE));
    const made = await plan({ source: device });
    const before = Arena.default.usedBytes;
    let end = 0;
    const reading = async () => {
      for await (const { offset, length } of readExtents(device, made, { requestSize: PAGE })) {
        end = offset + length;
      }
    };
    await expect(reading()).rejects.toMatchObject({ offset: bad, length: PAGE });
    expect(end).toBe(bad);
    expect(load.inFlight).toBe(0);
    expect(Arena.default.usedBytes).toBeLessThanOrEqual(before);
  });

  it('stops when the signal fires', async () => {
    const { device, memory } = await slowDevice(64 * PAGE);
    await memory.write(0, pattern(64 * PAGE));
    const made = await plan({ source: device });
    const abort = new AbortController();
    const options = { requestSize: PAGE, signal: abort.signal };
    const reading = async () => {
      for await (const { offset } of readExtents(device, made, options)) {
        if (offset === 5 * PAGE) abort.abort();
        expect(offset).toBeLessThanOrEqual(5 * PAGE);
      }
    };
    await expect(reading()).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });

  it('waits for every read in flight when the signal fires, before it gives memory back', async () => {
    const { device: source, load } = await slowDevice(4 * PAGE);
    const data = new Bitmap({ size: source.size, granularity: PAGE });
    data.setAll();
    const zero = new Bitmap({ size: source.size, granularity: PAGE });
    const abort = new AbortController();
    const options = { requestSize: PAGE, requests: 2, signal: abort.signal };
    const extents = readExtents(source, { data, zero }, options);
    await extents.next();
    while (load.inFlight > 0) await new Promise(setImmediate);
    await extents.next();
    // The piece whose turn is next.
    expect(load.inFlight).toBe(1);
    abort.abort();
    await expect(extents.next()).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(load.inFlight).toBe(0);
    data.free();
    zero.free();
  });

  it('opens what it is given as text, and closes it', async () => {
    const made = await plan({ source: 'driver=null,size=1G' });
    const kept = await keep(readExtents('driver=null,size=1G', made));
    expect(kept).toEqual([{ offset: 0, length: 2 ** 30, status: 'zero', data: undefined }]);
  });

  it('refuses options that make no sense at once, and the plan of another size', async () => {
    const source = fakeDevice(PAGE);
    const made = await plan({ source: fakeDevice(2 * PAGE) });
    expect(() => readExtents(source, made, { requests: 0 })).toThrow(RangeError);
    await expect(keep(readExtents(source, made))).rejects.toMatchObject({
      code: 'ERR_BITMAP_MISMATCH',
    });
  });
});
