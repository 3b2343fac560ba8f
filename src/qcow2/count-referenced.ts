/** Counts the clusters in a refcount block whose refcount is not zero ("Refcount block entry"). */
export function countReferenced(block: Uint8Array, refcountBits: number): number {
  if (refcountBits < 8) return countFields(block, refcountBits);
  const bytes = refcountBits / 8;
  let count = 0;
  for (let at = 0; at < block.length; at += bytes) {
    let any = 0;
    for (let i = 0; i < bytes; i++) any |= block[at + i];
    if (any !== 0) count++;
  }
  return count;
}

/** Several refcounts in one byte. */
function countFields(block: Uint8Array, bits: number): number {
  const mask = 2 ** bits - 1;
  let count = 0;
  for (const byte of block) {
    for (let rest = byte; rest !== 0; rest >>>= bits) if ((rest & mask) !== 0) count++;
  }
  return count;
}
