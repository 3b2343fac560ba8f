const FINEST = 512;
const MOST_GRANULES = 2 ** 34;

/**
 * The finest granularity that numbers a disk's granules below 2^34: 512 bytes up to 8 TiB, 4 KiB up to 64.
 * Runs of any length cost the same memory, so fine granules are cheap, and they keep a plan exact. But the more
 * of them there are, the more nodes may hold next to nothing each: with 2^34 up to 32 MiB of them in one bitmap.
 */
export function planGranularity(size: number): number {
  let granularity = FINEST;
  while (size / granularity > MOST_GRANULES) granularity *= 2;
  return granularity;
}
