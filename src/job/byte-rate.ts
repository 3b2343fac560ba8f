/**
 * The arithmetic of a limit on bytes per second: a clock counts the bytes that may have moved by now. Each piece of work
 * draws a ticket behind all earlier tickets, and begins when the clock has reached it: first come, first served, whatever
 * the size of a piece. Times are milliseconds of one clock, rates are bytes per millisecond, and 0 is no limit.
 */

/** Unused time that may be caught up. */
const BURST_MS = 25;

/** Limited work is done in pieces of this much time at most, so that they spread over the second. */
const PIECE_MS = 32;

/** The bytes that may have moved by `now`, of a clock that showed `bytes` at `since`. It never goes back. */
export function clockAt(bytes: number, since: number, now: number, rate: number): number {
  return bytes + Math.max(0, now - since) * rate;
}

/** What the clock shows once its rate was changed from `rate`, with all tickets up to `handedOut` drawn. */
export function clockAfterChange(clock: number, handedOut: number, rate: number): number {
  // Without a limit no piece waited for its turn: all that was handed out has moved.
  return rate > 0 ? clock : Math.max(clock, handedOut);
}

/** The earliest ticket: unused time is forgotten, except for a moment. */
export function earliestTicket(clock: number, rate: number): number {
  return clock - rate * BURST_MS;
}

/** Milliseconds until a ticket's turn, unless the rate changes: 0 or less when it has come. */
export function timeUntil(ticket: number, clock: number, rate: number): number {
  return rate === 0 ? 0 : (ticket - clock) / rate;
}

/** Bytes of the longest piece that spreads well over time, a power of two; Infinity without a limit. */
export function longestPiece(rate: number): number {
  return rate > 0 ? 2 ** Math.floor(Math.log2(rate * PIECE_MS)) : Number.POSITIVE_INFINITY;
}
