/**
 * What a compressor would find in bytes, at a tenth of its cost: values that are more frequent than others, and
 * sequences that come again. What either answer means is said in src/wasm/shrink-test.ts.
 */

// @ts-ignore: decorator
@inline
function count(counts: usize, value: u64): void {
  const counter = counts + (<usize>(value & 0xff) << 2);
  store<u32>(counter, load<u32>(counter) + 1);
}

/**
 * The sum of the squares of how often each value occurs. `length` is a multiple of 8 and at most 2^16; `counts` is
 * room for 256 u32.
 */
export function valueSquares(address: usize, length: u32, counts: usize): f64 {
  memory.fill(counts, 0, 1024);
  for (const end = address + length; address < end; address += 8) {
    const values = load<u64>(address);
    count(counts, values);
    count(counts, values >>> 8);
    count(counts, values >>> 16);
    count(counts, values >>> 24);
    count(counts, values >>> 32);
    count(counts, values >>> 40);
    count(counts, values >>> 48);
    count(counts, values >>> 56);
  }
  let squares: u64 = 0;
  for (const end = counts + 1024; counts < end; counts += 4) {
    const occurs = <u64>load<u32>(counts);
    squares += occurs * occurs;
  }
  return <f64>squares;
}

// @ts-ignore: decorator
@inline
function isRepeated(address: usize, seen: usize, shift: u32): u32 {
  // The low byte is 0, which no entry of an empty table has.
  const three = load<u32>(address) << 8;
  const entry = seen + (<usize>(three * 0x9e3779b1 >>> shift) << 2);
  const repeated = u32(load<u32>(entry) == three);
  store<u32>(entry, three);
  return repeated;
}

/** Empties a table of 2^bits u32 for {@link repeats}. */
export function clearSeen(seen: usize, bits: u32): void {
  memory.fill(seen, 0xff, <usize>4 << bits);
}

/**
 * How many times three bytes come again. `length` is a multiple of 4, of which the last 4 are not looked at; `seen` is
 * a table of 2^bits u32 that keeps what came last, also from one call to the next.
 */
export function repeats(address: usize, length: u32, seen: usize, bits: u32): u32 {
  const shift = 32 - bits;
  let found: u32 = 0;
  for (const end = address + length - 4; address < end; address += 4) {
    found += isRepeated(address, seen, shift);
    found += isRepeated(address + 1, seen, shift);
    found += isRepeated(address + 2, seen, shift);
    found += isRepeated(address + 3, seen, shift);
  }
  return found;
}
