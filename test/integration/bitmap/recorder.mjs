/**
 * Opens and closes a file of bitmaps over and over, recording writes in between, and notes in a log
 * what it does, until it is killed.
 */
import { openSync, writeSync } from 'node:fs';
import { BitmapFile, DirtyBitmaps } from 'lacuna/bitmap';
import { Random } from 'lacuna/testing';

const [path, logPath, size, seed] = process.argv.slice(2);
const log = openSync(logPath, 'a');
const note = (...words) => writeSync(log, `${words.join(' ')}\n`);
const random = new Random(Number(seed));
const below = (end) => random.below(end);

for (;;) {
  const file = BitmapFile.open(path, { size: Number(size) });
  const bitmaps = new DirtyBitmaps({ size: Number(size) });
  file.restore(bitmaps);
  for (let i = 0; i < 30; i++) {
    const { name, recording } = [...bitmaps][below(bitmaps.count)].info;
    const dice = below(10);
    if (dice === 0) file.store(bitmaps);
    else if (dice === 1 && recording) {
      bitmaps.disable(name);
      note('disable', name);
    } else if (dice === 2 && !recording) {
      note('enable', name);
      bitmaps.enable(name);
    } else {
      const offset = below(Number(size) - 1);
      note('record', offset);
      bitmaps.record(offset, 1);
    }
  }
  file.close(bitmaps);
  bitmaps.free();
}
