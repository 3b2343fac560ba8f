/** The digests of the bytes of an image file that was just stored. */
import fs from 'node:fs';
import { Bitmap } from '../../bitmap/index.js';
import { openDevice } from '../../block/index.js';
import { copy } from '../../copy/index.js';
import { attempt } from '../layout/index.js';
import { DIGEST_BLOCK, GatheredDigests } from '../leaves/index.js';
import { runCopy, type Workshop } from '../work/index.js';

/** The file to hash. */
export interface StoredFile {
  readonly filename: string;
  /** What the image holds of its disk, by the digests of what was written; undefined where it was compressed. */
  readonly held: GatheredDigests | undefined;
}

/**
 * The digests of the bytes of an image file. Where a block of the disk lies in it as it is, that block was hashed when it was
 * written, and is not read and hashed again: tables are left, and little else.
 *
 * @returns digests that the caller frees, and the digest of the whole file.
 */
export async function hashImage(
  { filename, held }: StoredFile,
  drive: Workshop,
): Promise<{ file: GatheredDigests; digest: string }> {
  const { size } = attempt('open', filename, () => fs.statSync(filename));
  const file = new GatheredDigests(size, filename);
  const unknown = new Bitmap({ size, granularity: DIGEST_BLOCK });
  try {
    unknown.setAll();
    if (held !== undefined) await takeHeld(filename, held, { file, unknown });
    const { control, threads } = drive;
    const job = copy({
      ...{ target: { driver: 'null' }, detectZeroes: 'off', flush: false, allowEmpty: true },
      ...(threads !== undefined && { threads }),
      signal: control.signal,
      source: { driver: 'file', filename },
      bitmap: unknown,
      // Holes of the file are not read: they count as zero.
      onBlock: (block, digest) => file.add(block, digest),
    });
    drive.tally.begin('hash');
    await runCopy(drive, job);
    return { file, digest: file.root() };
  } catch (error) {
    file.free();
    throw error;
  } finally {
    unknown.free();
  }
}

/** Takes the digests of the blocks that lie in the file as they are. */
async function takeHeld(
  filename: string,
  held: GatheredDigests,
  { file, unknown }: { file: GatheredDigests; unknown: Bitmap },
): Promise<void> {
  await using image = await openDevice({
    driver: 'qcow2',
    file: { driver: 'file', filename },
    backing: null,
  });
  for (const { offset, length } of held.data.ranges()) {
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const place = await image.locate!(at, end - at);
      const isAligned = place.driver !== undefined && place.offset % DIGEST_BLOCK === 0;
      // The last block of a disk may be a short one, and is zero behind its end in the file too.
      const stop = at + place.length;
      for (let block = at; isAligned && block < stop; block += DIGEST_BLOCK) {
        if (block + DIGEST_BLOCK > stop && stop < held.size) break;
        const own = place.offset + (block - at);
        file.add(own / DIGEST_BLOCK, held.digestOf(block / DIGEST_BLOCK));
        unknown.reset(own, Math.min(DIGEST_BLOCK, file.size - own));
      }
      at = stop;
    }
  }
}
