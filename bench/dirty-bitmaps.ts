/**
 * What recording a write costs with one bitmap that records and with a thousand, of the granularities
 * that people mix. All contenders do the same writes; afterwards every bitmap must hold them.
 */
import { Bitmap, DirtyBitmaps } from 'lacuna/bitmap';
import { type Bench, type Contender, race, report } from './support/bench.js';

const SIZE = 2 ** 40;
const GRANULARITIES = [65536, 65536, 2 ** 17, 2 ** 20];

export const benchDirtyBitmaps: Bench = async (options) => {
  const writes = scattered(options.smoke ? 1000 : 2_000_000);
  const many = options.smoke ? 10 : 1000;
  const expected = new Bitmap({ size: SIZE, granularity: GRANULARITIES[0] });
  for (const offset of writes) expected.set(offset, 4096);
  const contenders = [recording(1, writes, expected), recording(many, writes, expected)];
  report(await race('record writes', contenders, options.runs), options);
  expected.free();
};

function recording(count: number, writes: Float64Array, expected: Bitmap): Contender {
  const bitmaps = new DirtyBitmaps({ size: SIZE });
  for (let i = 0; i < count; i++) {
    bitmaps.add({ name: `${i}`, granularity: GRANULARITIES[i % GRANULARITIES.length] });
  }
  return {
    name: `${count} recording`,
    async run() {
      for (let i = 0; i < writes.length; i++) bitmaps.record(writes[i], 4096);
    },
    async verify() {
      for (const bitmap of bitmaps) {
        const wanted = new Bitmap({ size: SIZE, granularity: bitmap.granularity });
        wanted.merge(expected);
        const found = bitmap.snapshot();
        found.xor(wanted);
        if (found.count > 0) throw new Error(`${bitmap.name} of ${count} is not what was written`);
        found.free();
        wanted.free();
      }
      // The first look moved all that was recorded; fill the active bitmap as it was.
      await this.run();
    },
  };
}

/** Offsets all over the disk, the same in every run. */
function scattered(count: number): Float64Array {
  const granules = SIZE / 65536;
  return Float64Array.from({ length: count }, (_, i) => ((i * 7919) % granules) * 65536);
}
