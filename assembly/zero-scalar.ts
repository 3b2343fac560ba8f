/**
 * Zero test, 8 bytes at a time and 32 for each test. Twin of zero-simd.ts: same name, same answer.
 */

export function isZeroRange(address: usize, length: u32): bool {
  const end = address + length;
  while (address + 32 <= end) {
    const left = load<u64>(address) | load<u64>(address, 8);
    const right = load<u64>(address, 16) | load<u64>(address, 24);
    if ((left | right) != 0) return false;
    address += 32;
  }
  return isZeroTail(address, end);
}

/** What is left when it is too short for the big steps. */
export function isZeroTail(address: usize, end: usize): bool {
  while (address + 8 <= end) {
    if (load<u64>(address) != 0) return false;
    address += 8;
  }
  while (address < end) {
    if (load<u8>(address++) != 0) return false;
  }
  return true;
}
