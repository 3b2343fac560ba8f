import { defaultMaxListeners, getMaxListeners, setMaxListeners } from 'node:events';
import { abortedError } from '../../errors/index.js';

/**
 * Listens to a signal that may be shared by any number of requests. That is right for one copy, but Node
 * suspects a leak from 11 listeners on.
 */
export function onAbort(signal: AbortSignal, listener: () => void): void {
  // Not 0, the documented "no limit": with it, getMaxListeners of Node 20 throws.
  if (getMaxListeners(signal) === defaultMaxListeners) {
    setMaxListeners(Number.POSITIVE_INFINITY, signal);
  }
  signal.addEventListener('abort', listener);
}

/** Waits for what others wait for as well, until this caller gives up. @throws LacunaError ERR_ABORTED */
export function orAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  if (signal.aborted) return Promise.reject(abortedError(signal));
  return new Promise((resolve, reject) => {
    const abort = () => reject(abortedError(signal));
    onAbort(signal, abort);
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
