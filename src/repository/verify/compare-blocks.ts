/** Reads a device and compares its blocks with digests. */
import { Bitmap } from '../../bitmap/index.js';
import { copy, type DeviceSource } from '../../copy/index.js';
import type { Range } from '../../extent/index.js';
import { DIGEST_BLOCK, ZERO_LEAF } from '../leaves/index.js';
import { runCopy, type Workshop } from '../work/index.js';

export interface Comparison {
  readonly source: DeviceSource;
  /** The blocks to read. */
  readonly blocks: Bitmap;
  readonly workshop: Workshop;
  digestOf(block: number): Uint8Array;
}

/** Blocks that differ, as ranges in order, and how many bytes were read. */
export async function compareBlocks({
  source,
  blocks,
  workshop,
  digestOf,
}: Comparison): Promise<{ ranges: Range[]; readBytes: number }> {
  const { control, threads } = workshop;
  const { size } = blocks;
  if (blocks.count === 0) return { ranges: [], readBytes: 0 };
  const lengthAt = (offset: number) => Math.min(DIGEST_BLOCK, size - offset);
  const different = new Bitmap({ size, granularity: DIGEST_BLOCK });
  const unread = blocks.snapshot();
  try {
    const onBlock = (block: number, digest: Uint8Array) => {
      const offset = block * DIGEST_BLOCK;
      unread.reset(offset, lengthAt(offset));
      if (Buffer.compare(digestOf(block), digest) !== 0) different.set(offset, lengthAt(offset));
    };
    const job = copy({
      source,
      target: { driver: 'null' },
      bitmap: blocks,
      detectZeroes: 'off',
      flush: false,
      allowEmpty: true,
      ...(threads !== undefined && { threads }),
      signal: control.signal,
      onBlock,
    });
    const { movedBytes: readBytes } = await runCopy(workshop, job);
    // What is not read, because its status says zero, must be zero.
    for (const { offset, length } of unread.ranges()) {
      for (let at = offset; at < offset + length; at += DIGEST_BLOCK) {
        if (!ZERO_LEAF.equals(digestOf(at / DIGEST_BLOCK))) different.set(at, lengthAt(at));
      }
    }
    return { ranges: [...different.ranges()], readBytes };
  } finally {
    different.free();
    unread.free();
  }
}
