/**
 * Zero test, 128 bytes for each test: eight loads joined by a tree of ORs, since one test for each
 * vector is bound by its branches and slower than memcmp. Twin of zero-scalar.ts: same name, same
 * answer.
 */
import { isZeroTail } from "./zero-scalar";

export function isZeroRange(address: usize, length: u32): bool {
  const end = address + length;
  // Data mostly shows itself in its first bytes: look there before setting out for 128.
  if (length >= 16 && v128.any_true(v128.load(address))) return false;
  while (address + 128 <= end) {
    const a = v128.or(v128.load(address), v128.load(address, 16));
    const b = v128.or(v128.load(address, 32), v128.load(address, 48));
    const c = v128.or(v128.load(address, 64), v128.load(address, 80));
    const d = v128.or(v128.load(address, 96), v128.load(address, 112));
    if (v128.any_true(v128.or(v128.or(a, b), v128.or(c, d)))) return false;
    address += 128;
  }
  while (address + 16 <= end) {
    if (v128.any_true(v128.load(address))) return false;
    address += 16;
  }
  return isZeroTail(address, end);
}
