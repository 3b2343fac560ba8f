import { defaultMaxListeners, getMaxListeners, setMaxListeners } from 'node:events';
import { abortedError } from '../errors/index.js';

/**
 * Listens to a signal that may be shared by any number of requests. That is right for one copy, but Node
 * suspects a leak from 11 listeners on.
 */
export function onAbort(signal: AbortSignal, listener: () => void): void {
  // Not 0, the documented "no limit", for the sake of others who ask: see mostListeners.
  if (mostListeners(signal) === defaultMaxListeners) {
    setMaxListeners(Number.POSITIVE_INFINITY, signal);
  }
  signal.addEventListener('abort', listener);
}

/** Node 20 throws where the owner of a signal has set the limit to 0. */
function mostListeners(signal: AbortSignal): number {
  try {
    return getMaxListeners(signal);
  } catch {
    return 0;
  }
}

/**
 * Waits for what others wait for as well, until this caller gives up. Whether the work fails behind that is nobody's
 * concern any more, and no unhandled rejection.
 *
 * @throws LacunaError ERR_ABORTED
 */
export function orAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  return new Promise((resolve, reject) => {
    const abort = () => reject(abortedError(signal));
    if (signal.aborted) abort();
    else onAbort(signal, abort);
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

/** A signal that fires with the first of several. */
interface JoinedSignal {
  readonly signal: AbortSignal;
  /** Lets go of the others: what becomes of them does not matter any more. */
  release(): void;
}

/**
 * Joins signals until they are released. Not AbortSignal.any: a signal may outlive any amount of work, and in Node 20 it
 * remembers everything that was joined with it.
 */
export function joinSignals(...signals: readonly (AbortSignal | undefined)[]): JoinedSignal {
  const joined = new AbortController();
  const releases = signals.map((signal) => {
    if (signal === undefined) return () => {};
    const abort = () => joined.abort(signal.reason);
    if (signal.aborted) abort();
    else onAbort(signal, abort);
    return () => signal.removeEventListener('abort', abort);
  });
  return {
    signal: joined.signal,
    release: () => {
      for (const release of releases) release();
    },
  };
}
