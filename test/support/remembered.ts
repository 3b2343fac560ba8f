import { getEventListeners } from 'node:events';

/** How many things a signal still has to tell when it fires; signals that AbortSignal.any has joined with it count in Node 20 for ever. */
export function rememberedBy(signal: AbortSignal): number {
  const key = Object.getOwnPropertySymbols(signal).find(
    ({ description }) => description === 'kDependantSignals',
  );
  const joined = key && (signal as unknown as Record<symbol, Set<unknown>>)[key];
  return getEventListeners(signal, 'abort').length + (joined?.size ?? 0);
}
