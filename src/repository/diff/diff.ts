/** What changed between two points, by their digests: nothing of the disks is read. */
import type { Range } from '../../extent/index.js';
import { optionCheck } from '../../util/index.js';
import { type DiskDigests, differences, withDigests } from '../disks/index.js';
import { DIGEST_BLOCK, ZERO_LEAF } from '../leaves/index.js';
import { Lock } from '../lock/index.js';
import { type PointName, selectPoint } from '../points/index.js';
import type { Store } from '../store/index.js';

/** The points that are compared. */
export interface DiffOptions {
  /** The machine; it need not be said where there is one alone, or the points say it. */
  readonly machine?: string | undefined;
  /** The earlier point; the two may also be given the other way round. */
  readonly from: PointName;
  /** The later point of the same machine. */
  readonly to: PointName;
  /** Fires to end it; it fails with ERR_ABORTED. */
  readonly signal?: AbortSignal;
}

/** A range that differs: in blocks of 64 KiB, cut at the end of the disk. */
export interface ChangedRange extends Range {
  /** It reads as zero at the later point. */
  readonly isZero: boolean;
}

/** What changed of a disk. */
export interface DiskDiff {
  /** The name of the disk. */
  readonly name: string;
  /** Bytes at the earlier point; null where it has no such disk. */
  readonly fromSize: number | null;
  /** Bytes at the later point; null where it has no such disk. */
  readonly toSize: number | null;
  /** Bytes that differ, within what the disk has at the later point. */
  readonly changedBytes: number;
  /** Of these, bytes that are zero at the later point. */
  readonly zeroBytes: number;
  /** Where they are, in order. */
  readonly ranges: readonly ChangedRange[];
}

/** What changed between two points. */
export interface DiffReport {
  /** The machine that both are of. */
  readonly machine: string;
  /** The number of the earlier point. */
  readonly from: number;
  /** The number of the later point. */
  readonly to: number;
  /** Every disk that one of them has. */
  readonly disks: readonly DiskDiff[];
}

const check = optionCheck<DiffOptions>({
  machine: 'any',
  from: { needed: 'the earlier point' },
  to: { needed: 'the later point' },
  signal: 'signal',
});

/** @throws what {@link Repository.diff} says. */
export async function diff(store: Store, options: DiffOptions): Promise<DiffReport> {
  check('diff', options);
  const { machine } = selectPoint(store, options.from, options.machine).points;
  const lock = Lock.take(store.places(machine), 'read', 'diff', store.operations);
  try {
    // Again, because it may have changed before the lock was taken.
    const { points, manifest: from } = selectPoint(store, options.from, options.machine);
    const { manifest: to } = selectPoint(store, options.to, options.machine ?? machine);
    if (to.machine !== machine) {
      throw new TypeError(
        `points of one machine are compared, not of ${machine} and ${to.machine}`,
      );
    }
    const disks: DiskDiff[] = [];
    const names = new Set([...from.disks, ...to.disks].map(({ name }) => name));
    for (const name of names) {
      const sizeAt = ({ disks }: typeof to) =>
        disks.find((disk) => disk.name === name)?.size ?? null;
      const sizes = { name, fromSize: sizeAt(from), toSize: sizeAt(to) };
      if (sizes.fromSize === null || sizes.toSize === null) {
        disks.push({ ...sizes, changedBytes: 0, zeroBytes: 0, ranges: [] });
        continue;
      }
      options.signal?.throwIfAborted();
      const ranges = await withDigests(points, to.number, name, (later) =>
        withDigests(points, from.number, name, async (earlier) => rangesOf(later, earlier)),
      );
      disks.push({ ...sizes, ...sumsOf(ranges), ranges });
    }
    return { machine, from: from.number, to: to.number, disks };
  } finally {
    lock.release();
  }
}

function rangesOf(later: DiskDigests, earlier: DiskDigests): ChangedRange[] {
  const changed = differences(later, earlier);
  const ranges: { offset: number; length: number; isZero: boolean }[] = [];
  try {
    for (const { offset, length } of changed.ranges()) {
      for (let at = offset; at < offset + length; at += DIGEST_BLOCK) {
        const isZero = later.leaves.digestOf(at / DIGEST_BLOCK).equals(ZERO_LEAF);
        const size = Math.min(DIGEST_BLOCK, offset + length - at);
        const last = ranges.at(-1);
        if (last?.isZero === isZero && last.offset + last.length === at) last.length += size;
        else ranges.push({ offset: at, length: size, isZero });
      }
    }
    return ranges;
  } finally {
    changed.free();
  }
}

function sumsOf(ranges: readonly ChangedRange[]) {
  const sum = (some: readonly ChangedRange[]) => some.reduce((all, { length }) => all + length, 0);
  return { changedBytes: sum(ranges), zeroBytes: sum(ranges.filter(({ isZero }) => isZero)) };
}
