const FINEST = 512;
const MOST_GRANULES = 2 ** 35;

/**
 * The finest granularity that numbers a disk's granules below 2^35: 512 bytes up to 16 TiB. Runs of any
 * length cost the same memory, so fine granules are cheap; and they keep a plan exact to the sector.
 */
export function planGranularity(size: number): number {
  let granularity = FINEST;
  while (size / granularity > MOST_GRANULES) granularity *= 2;
  return granularity;
}
