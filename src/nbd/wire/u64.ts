const TWO_32 = 2 ** 32;

/**
 * An unsigned 64-bit number. Above 2^53 - 1 the result is rounded, never smaller than 2^53 - 1, so that
 * a check against an upper bound still holds.
 */
export function readU64(view: DataView, at: number): number {
  return view.getUint32(at) * TWO_32 + view.getUint32(at + 4);
}

/** Writes a whole number from 0 to 2^53 - 1. */
export function writeU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / TWO_32));
  view.setUint32(at + 4, value % TWO_32);
}
