import type { CopyRange, Location } from './driver.js';
import type { Requests } from './requests.js';

/** Bytes that are kept nowhere as they are pass through a buffer of this size. */
const BUFFER = 1024 * 1024;

interface Reader {
  locate(offset: number, length: number): Promise<Location>;
  read(offset: number, target: Uint8Array, options: Options): Promise<void>;
}

interface Writer {
  write(offset: number, source: Uint8Array, options: Options): Promise<void>;
}

interface Options {
  readonly signal?: AbortSignal;
}

interface Sides {
  readonly source: Reader;
  readonly target: Writer;
  /** Those of the target's driver. */
  readonly requests: Requests;
}

/**
 * Copies a range of a device that keeps its bytes in others, such as an image: each piece from where it lies. Pieces
 * that lie nowhere are read and written.
 *
 * @returns false, having changed nothing, where the first piece that lies somewhere cannot be copied from there.
 */
export async function copyLocated(
  { source, target, requests }: Sides,
  { sourceOffset, targetOffset, length }: CopyRange,
  options: Options,
): Promise<boolean> {
  let buffer: Uint8Array | undefined;
  for (let done = 0; done < length; ) {
    const place = await source.locate(sourceOffset + done, length - done);
    const { driver, offset } = place;
    const piece = { sourceOffset: offset, targetOffset: targetOffset + done, length: place.length };
    const copied = driver !== undefined && (await requests.copyFrom(driver, piece, options.signal));
    if (copied) {
      done += place.length;
      continue;
    }
    if (driver !== undefined && done === 0) return false;
    buffer ??= new Uint8Array(Math.min(BUFFER, length));
    const bytes = buffer.subarray(0, Math.min(BUFFER, place.length));
    await source.read(sourceOffset + done, bytes, options);
    await target.write(targetOffset + done, bytes, options);
    done += bytes.length;
  }
  return true;
}
