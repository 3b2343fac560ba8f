/**
 * A mutex in one u32 of shared memory: 0 free, 1 held, 2 held and somebody may be waiting. Taking
 * and giving back a lock that nobody wants costs one atomic instruction each.
 *
 * A thread that is terminated inside a kernel leaves its lock held for ever, so threads must be asked
 * to end, not terminated; whoever waits for such a lock traps in the end. Work that may lose a thread
 * gets an arena of its own.
 *
 * Memory model. WebAssembly's atomics are sequentially consistent, and taking a lock reads what giving
 * it back wrote: all that a thread stored under a lock, with plain stores, is seen by whoever takes the
 * lock next. A bitmap's header and the nodes that it alone holds are only touched under its lock, the
 * allocator's lists under the arena's. A node that several bitmaps share is not written at all; its
 * references are atomic, and one that goes to 1 says that the others have read their last, since they
 * give theirs back only after that. Only the size is read without the lock.
 */

/**
 * Ten seconds in which nothing happens: no kernel works as long, so the holder of the lock is dead. They are
 * waited one by one, because a process that was stopped finds its wait timed out when it runs on, however
 * alive the holder is: that may cost one of them.
 */
const WAIT_NS: i64 = 1_000_000_000;
const MOST_WAITS: u32 = 10;
const TIMED_OUT: i32 = 2;
const UNUSED_WORD: usize = 4;

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
  let waits: u32 = 0;
  while (atomic.xchg<u32>(word, 2) != 0) {
    waits = nap(word) ? waits + 1 : 0;
    // A trap is better than a hang: what the dead thread left half done cannot be trusted either.
    if (waits == MOST_WAITS) unreachable();
  }
}

/**
 * Waits once; true if nothing happened meanwhile. Node 20's baseline compiler loses what locals held before a
 * wait, so nothing here is used after it, and the call to itself, which never happens, keeps the optimizer
 * from copying it to where that would not be so. The stress test and the test of the lock find that out.
 */
function nap(word: usize): bool {
  if (word == 0) return nap(UNUSED_WORD);
  return atomic.wait<i32>(word, 2, WAIT_NS) == TIMED_OUT;
}

// @ts-ignore: decorator
@inline
export function unlock(word: usize): void {
  if (atomic.xchg<u32>(word, 0) == 2) atomic.notify(word, 1);
}
