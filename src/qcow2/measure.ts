/** What a new image will take, as `qemu-img measure` reckons it: no less than any writer needs. */
import { bitmapDirectoryBytes, bitmapTableEntries } from './bitmap-directory.js';
import type { Geometry } from './geometry.js';

/** How a new image is made, as far as its size depends on it. */
export interface MeasuredImage {
  /** Bytes of the disk. */
  readonly size: number;
  readonly geometry: Geometry;
}

/** A bitmap that the image will keep. */
export interface MeasuredBitmap {
  readonly name: string;
  readonly granularityBits: number;
}

/** Bytes of a disk in whole clusters. */
export function wholeClusters({ size, geometry: { clusterSize } }: MeasuredImage): number {
  return Math.ceil(size / clusterSize) * clusterSize;
}

/** Bytes of an image in which every cluster of the disk is allocated. */
export function allocatedBytes(image: MeasuredImage): number {
  const { clusterSize, refcountBlockEntries, l2EntryBytes } = image.geometry;
  const data = wholeClusters(image) / clusterSize;
  const tables = Math.ceil((data * l2EntryBytes) / clusterSize);
  const l1 = Math.ceil((tables * 8) / clusterSize);
  const clusters = 1 + tables + l1 + data;
  let blocks = 0;
  let table = 0;
  for (let last = -1; last !== blocks + table; ) {
    last = blocks + table;
    blocks = Math.ceil((clusters + table + blocks) / refcountBlockEntries);
    table = Math.ceil((blocks * 8) / clusterSize);
  }
  return (clusters + blocks + table) * clusterSize;
}

/** Bytes that bitmaps will take at most, with their tables and their directory. */
export function bitmapsBytes(
  { size, geometry }: MeasuredImage,
  bitmaps: readonly MeasuredBitmap[],
): number {
  const { clusterSize } = geometry;
  const whole = (bytes: number) => Math.ceil(bytes / clusterSize) * clusterSize;
  let bytes = whole(bitmapDirectoryBytes(bitmaps));
  for (const { granularityBits } of bitmaps) {
    const entries = bitmapTableEntries(granularityBits, { size, geometry });
    bytes += entries * clusterSize + whole(entries * 8);
  }
  return bytes;
}
