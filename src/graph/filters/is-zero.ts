const ZEROES = Buffer.alloc(1024 * 1024);

/** Whether bytes are nothing but zeroes. */
export function isZero(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; at += ZEROES.length) {
    const part = bytes.subarray(at, at + ZEROES.length);
    if (!ZEROES.subarray(0, part.length).equals(part)) return false;
  }
  return true;
}
