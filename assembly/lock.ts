/**
 * A mutex in one u32 of shared memory: 0 free, 1 held, 2 held and somebody may be waiting. Taking
 * and giving back a lock that nobody wants costs one atomic instruction each.
 *
 * A thread that is terminated inside a kernel leaves its lock held for ever; threads must be asked
 * to end, not terminated, while they work on an arena that others go on using.
 */

/** Kernels hold a lock for well under a microsecond, less than going to sleep costs. */
const SPINS: i32 = 200;

// @ts-ignore: decorator
@inline
export function lock(word: usize): void {
  if (atomic.cmpxchg<u32>(word, 0, 1) != 0) lockContended(word);
}

function lockContended(word: usize): void {
  for (let i = 0; i < SPINS; i++) {
    if (atomic.load<u32>(word) == 0 && atomic.cmpxchg<u32>(word, 0, 1) == 0) return;
  }
  while (atomic.xchg<u32>(word, 2) != 0) atomic.wait<i32>(word, 2, -1);
}

// @ts-ignore: decorator
@inline
export function unlock(word: usize): void {
  if (atomic.xchg<u32>(word, 0) == 2) atomic.notify(word, 1);
}
