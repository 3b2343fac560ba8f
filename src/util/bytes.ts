/**
 * Numbers of 64 bits as JavaScript's numbers, and text that must be exact: what protocols and file formats are read
 * and written with. Two halves of 32 bits are many times faster than a BigInt for each number.
 */

/** One more than the largest number of 32 bits. */
export const TWO_32 = 2 ** 32;

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** A view of exactly these bytes. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * Two halves of 32 bits, both unsigned, as one number. Above 2^53 - 1 the result is rounded, never smaller than
 * 2^53 - 1, so that a check against an upper bound still holds.
 */
export function joinHalves(high: number, low: number): number {
  return high * TWO_32 + low;
}

/** Reads an unsigned number of 64 bits, rounded as {@link joinHalves} does. Big-endian unless said otherwise. */
export function readU64(view: DataView, at: number, littleEndian = false): number {
  const high = view.getUint32(littleEndian ? at + 4 : at, littleEndian);
  return joinHalves(high, view.getUint32(littleEndian ? at : at + 4, littleEndian));
}

/** Writes a whole number from 0 to 2^53 - 1, big-endian unless said otherwise. */
export function writeU64(view: DataView, at: number, value: number, littleEndian = false): void {
  view.setUint32(littleEndian ? at + 4 : at, Math.floor(value / TWO_32), littleEndian);
  view.setUint32(littleEndian ? at : at + 4, value % TWO_32, littleEndian);
}

/** Text that other programs are given, such as a name; undefined where the bytes are not valid UTF-8. */
export function exactText(bytes: Uint8Array): string | undefined {
  try {
    return strict.decode(bytes);
  } catch {
    return undefined;
  }
}
