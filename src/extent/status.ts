/**
 * The status of a byte range, as bits that combine. A range whose status has `zero` reads as zero, and
 * only that bit ever allows a range to be skipped: a `hole` without `zero` may read as anything.
 *
 *     data          allocated, content unknown
 *     zero          allocated here, reads as zero
 *     hole | zero   not allocated here, or without room of its own (a qcow2 cluster of zeroes); reads as zero
 *     hole          not allocated here; what it reads as comes from elsewhere and must be read
 */
export const Status = {
  data: 1,
  zero: 2,
  hole: 4,
} as const;

/** The names of NBD's and QEMU's metadata contexts, used for every device alike. */
export const Context = {
  /** Flags are {@link Status} bits. */
  allocation: 'base:allocation',
  /** Flags are the depth at which a range is allocated: 0 nowhere, 1 here, 2 and more in a backing image. */
  depth: 'qemu:allocation-depth',
  /** Followed by a bitmap's name. Flag {@link DIRTY} marks dirty ranges. */
  dirtyPrefix: 'qemu:dirty-bitmap:',
} as const;

/** The flag of a dirty range in a `qemu:dirty-bitmap:NAME` context. */
export const DIRTY = 1;

/** Whether a metadata context tells dirty ranges. */
export function isDirtyContext(context: string): boolean {
  return context.startsWith(Context.dirtyPrefix);
}

/**
 * Whether a range of this {@link Status} reads as zero. Bits that nobody has defined may mean anything, so a
 * status that has one is not believed.
 */
export function readsAsZero(status: number): boolean {
  return (
    status === Status.zero ||
    status === (Status.zero | Status.hole) ||
    status === (Status.zero | Status.data)
  );
}
