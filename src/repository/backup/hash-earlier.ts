/** The digests of what an earlier run has stored of an image. */
import { Bitmap } from '../../bitmap/index.js';
import { openDevice } from '../../block/index.js';
import { copy } from '../../copy/index.js';
import { DIGEST_BLOCK, type GatheredDigests } from '../leaves/index.js';
import { runCopy, type Workshop } from '../work/index.js';

export interface EarlierRun {
  /** The image, which is whole. */
  readonly path: string;
  /** Takes the digests. */
  readonly digests: Pick<GatheredDigests, 'add'>;
  /** The blocks whose digests have come already. */
  readonly heard: Bitmap;
}

/**
 * Reads from the image, and not from the source, what this run has not moved.
 *
 * @returns the bytes of data that were there.
 */
export async function hashEarlier(
  { path, digests, heard }: EarlierRun,
  drive: Workshop,
): Promise<number> {
  // What it does not hold is no part of it.
  await using source = await openDevice({
    driver: 'qcow2',
    file: { driver: 'file', filename: path },
    backing: null,
  });
  using others = new Bitmap({ size: heard.size, granularity: DIGEST_BLOCK });
  others.setAll();
  others.subtract(heard);
  others.resize(source.size);
  const { control, threads } = drive;
  const job = copy({
    ...{ source, target: { driver: 'null' }, detectZeroes: 'off', flush: false, allowEmpty: true },
    ...(threads !== undefined && { threads }),
    signal: control.signal,
    bitmap: others,
    onBlock: (block, digest) => digests.add(block, digest),
  });
  drive.tally.begin('hash');
  return (await runCopy(drive, job)).movedBytes;
}
