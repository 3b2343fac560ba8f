const TWO_32 = 2 ** 32;

/** A view of exactly these bytes. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

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

/** Text of an image that is only shown, or compared with other texts. Broken UTF-8 becomes U+FFFD. */
export function readText(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

/** The name of a file; undefined where it is not valid UTF-8, and so not a name that we could give to the system. */
export function readFileName(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

export function textBytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
