/** Where a disk differs between two points, by digests alone. */
import { Bitmap } from '../../bitmap/index.js';
import { DIGEST_BLOCK, PART_BLOCKS } from '../leaves/index.js';
import type { DiskDigests } from './disk-digests.js';

type Shown = Pick<DiskDigests, 'size' | 'leaves'>;

/** The blocks of a disk that are not what they were at another point; the caller frees the bitmap. */
export function differences(disk: Shown, below: Shown): Bitmap {
  const different = new Bitmap({ size: disk.size, granularity: DIGEST_BLOCK });
  for (const part of changedParts(disk, below)) {
    const end = Math.min(disk.leaves.blocks, (part + 1) * PART_BLOCKS);
    for (let block = part * PART_BLOCKS; block < end; block++) {
      if (disk.leaves.digestOf(block).equals(below.leaves.digestOf(block))) continue;
      const offset = block * DIGEST_BLOCK;
      different.set(offset, Math.min(DIGEST_BLOCK, disk.size - offset));
    }
  }
  return different;
}

/** The parts that have other digests. */
function changedParts(disk: Shown, below: Shown): number[] {
  const [own, old] = [disk.leaves.parts(), below.leaves.parts()];
  const parts = new Set([...own.keys(), ...old.keys()]);
  return [...parts]
    .filter((part) => {
      const [digest, before] = [own.get(part), old.get(part)];
      return digest === undefined || before === undefined || !digest.equals(before);
    })
    .sort((a, b) => a - b);
}
