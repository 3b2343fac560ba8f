import { LacunaError } from '../../../errors/index.js';
import type { Agreement } from '../handshake/index.js';

/** Whether a request that failed so may be made again over a new connection, and a connection is needed. */
export function isLost(error: unknown): boolean {
  if (!(error instanceof LacunaError)) return false;
  // A server that goes away answers with ESHUTDOWN what it has not done.
  if (error.code === 'ERR_NBD_REMOTE') return error.errno === 'ESHUTDOWN';
  return error.code === 'ERR_NBD_DISCONNECTED' || error.code === 'ERR_TIMEOUT';
}

/**
 * Whether it is worth trying again to connect. A server that has just been started may not have its exports
 * yet; but one that breaks the protocol, or is not who it must be, does not get better by asking.
 */
export function mayConnectLater(error: unknown): boolean {
  const isMissing = error instanceof LacunaError && error.code === 'ERR_DEVICE_OPEN';
  return isMissing || isLost(error);
}

/** What differs between two agreements on what must be the same export, in words; undefined where nothing does. */
export function difference(before: Agreement, now: Agreement): string | undefined {
  const parts: readonly (readonly [string, unknown, unknown])[] = [
    ['size', before.size, now.size],
    ['flags', hex(before.flags), hex(now.flags)],
    ['metadata contexts', names(before), names(now)],
    ['block sizes told', before.blockSizesTold, now.blockSizesTold],
    ['minimum block', before.blockSizes.minimum, now.blockSizes.minimum],
    ['preferred block', before.blockSizes.preferred, now.blockSizes.preferred],
    ['maximum payload', before.blockSizes.maximum, now.blockSizes.maximum],
    ['structured replies', before.structured, now.structured],
    ['extended headers', before.extended, now.extended],
  ];
  const changed = parts.filter(([, old, fresh]) => old !== fresh);
  if (changed.length === 0) return undefined;
  return changed.map(([what, old, fresh]) => `${what} was ${old} and is ${fresh}`).join(', ');
}

function hex(flags: number): string {
  return `0x${flags.toString(16)}`;
}

function names({ contexts }: Agreement): string {
  return contexts
    .map(({ name }) => name)
    .sort()
    .join(', ');
}

/** Waits between attempts: short at first, because most servers are restarted, then longer. */
export function* backoff(firstMs = 50, longestMs = 4000): Generator<number, never> {
  for (let delayMs = firstMs; ; delayMs = Math.min(delayMs * 2, longestMs)) {
    // Not all clients of a server at the same moment.
    yield delayMs * (0.75 + Math.random() / 2);
  }
}
