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

/** Ten seconds: no kernel works as long, so the holder of the lock is dead. */
const PATIENCE_NS: i64 = 1_000_000_000;
const PATIENCE_TIMES: u32 = 10;
const TIMED_OUT: i32 = 2;

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
  while (atomic.xchg<u32>(word, 2) != 0) sleep(word, PATIENCE_TIMES);
}

/**
 * Waits in turns, and calls itself for the next one, so that the optimizer copies neither this function
 * nor its caller into the kernels: there, with Node 20's baseline compiler, what other locals held is
 * lost by a wait. The stress test finds that out.
 */
function sleep(word: usize, turns: u32): void {
  if (atomic.wait<i32>(word, 2, PATIENCE_NS) != TIMED_OUT) return;
  // A trap is better than a hang: what the dead thread left half done cannot be trusted either.
  if (turns <= 1) unreachable();
  sleep(word, turns - 1);
}

// @ts-ignore: decorator
@inline
export function unlock(word: usize): void {
  if (atomic.xchg<u32>(word, 0) == 2) atomic.notify(word, 1);
}
