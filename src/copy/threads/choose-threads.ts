/** Chooses how many worker threads a copy is worth. */
import { availableParallelism } from 'node:os';
import type { Bitmap } from '../../bitmap/index.js';
import { type BlockDevice, isServedHere, isShareable, plainFile } from '../../block/index.js';
import type { Ends } from '../move/index.js';
import { type CopyOptions, isHashed, type TransferOptions } from '../options/index.js';

const GiB = 2 ** 30;

/**
 * Less than this is moved sooner by the calling thread alone: a worker takes a tenth of a second to start, and a
 * quarter of a second of processor time until its code is as fast as it gets.
 */
const WORTH_A_THREAD = GiB;

/** The same where a server on this machine has as much to do, so that nobody waits for processors that are idle. */
const WORTH_A_THREAD_BESIDE_A_SERVER = 4 * GiB;

/** More connections than this have not been seen to help. */
const MOST_THREADS = 4;

/**
 * Worker threads for this much work. Each opens the devices anew, so both must be of a kind that can be
 * opened several times and shows the same bytes each time.
 */
export async function chooseThreads(
  options: TransferOptions & Pick<CopyOptions, 'sequential' | 'digest' | 'onBlock'>,
  { source, target }: Ends,
  data: Bitmap,
): Promise<number> {
  const { threads, sequential } = options;
  const bytes = data.dirtyBytes;
  if (!isShareable(source) || !isShareable(target)) return 0;
  if (sequential) return Math.min(1, threads ?? (bytes < WORTH_A_THREAD ? 0 : 1));
  if (threads !== undefined) return threads;
  if (bytes < WORTH_A_THREAD) return 0;
  // Between files it is the kernel that copies, at memory speed, and one thread after another.
  if ((await isInFiles(source, data)) && (await isInFiles(target, data))) return 1;
  // A digest is work of the copy alone.
  const isShared =
    !isHashed(options) && [source, target].some((side) => isServedHere(side.description));
  if (isShared && bytes < WORTH_A_THREAD_BESIDE_A_SERVER) return 0;
  return Math.min(MOST_THREADS, availableParallelism());
}

/** Places that are looked at to know where the bytes of a device are. */
const SAMPLES = 4;

/** Whether what is going to be moved lies in files as it is, as far as samples tell: compressed bytes do not. */
async function isInFiles(device: BlockDevice, data: Bitmap): Promise<boolean> {
  for (let sample = 0; sample < SAMPLES; sample++) {
    const at = data.nextDirty(Math.floor((data.size / SAMPLES) * sample));
    if (at < 0) continue;
    // Whoever fails here fails again when the copy begins, and is told then.
    const place = await device.locate?.(at, 1).catch(() => undefined);
    if (plainFile(place?.driver?.description) === undefined) return false;
  }
  return true;
}
