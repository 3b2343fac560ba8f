import type { Bitmap } from '../bitmap/index.js';
import type { Device } from '../block/index.js';
import { isAborted, LacunaError } from '../errors/index.js';

/** Bytes that are looked at in one place: little, so that a disk in use is not taken for two. */
const LOOK_BYTES = 4096;

/** Places that are looked at; a new disk and a source differ in the first that holds anything but zeroes. */
const PLACES = 4;

/**
 * Whether a source and a target may be one disk, so that zeroing all of the target would wipe the source. Names tell
 * nothing: one disk has many, such as two URIs, or a path and an export. Two disks are known by a place where they
 * differ, among those that hold `data`; the target needs to be written there anyway.
 */
export async function mayBeSameDisk(
  source: Device,
  target: Device,
  data: Bitmap,
  signal: AbortSignal,
): Promise<boolean> {
  if (source === target) return true;
  let isAnywhere = false;
  for (let place = 0; place < PLACES; place++) {
    const from = Math.floor((data.size / PLACES) * place);
    const area = data.nextDirtyArea(from, data.size, LOOK_BYTES);
    if (area === null) break;
    isAnywhere = true;
    if (await differ(source, target, area, signal)) return false;
  }
  return isAnywhere;
}

async function differ(
  source: Device,
  target: Device,
  { offset, length }: { offset: number; length: number },
  signal: AbortSignal,
): Promise<boolean> {
  const [a, b] = [Buffer.alloc(length), Buffer.alloc(length)];
  try {
    await Promise.all([source.read(offset, a, { signal }), target.read(offset, b, { signal })]);
  } catch (error) {
    if (!(error instanceof LacunaError) || isAborted(error)) throw error;
    // What cannot be read tells nothing here, and the copy meets it again.
    return false;
  }
  return Buffer.compare(a, b) !== 0;
}
