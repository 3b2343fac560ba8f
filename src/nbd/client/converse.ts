import { abortedError, isAborted, LacunaError } from '../../errors/index.js';
import { formatNbdUri, type NbdServerAddress } from '../uri.js';
import { type Conversation, Dialogue } from './dialogue.js';
import { locate } from './failures.js';
import { Transport } from './transport.js';

export interface ConverseOptions {
  readonly server: NbdServerAddress;
  /** How messages name what is talked to; default the server's URI. */
  readonly name?: string;
  /** Limit for connecting and talking together. Default 15 s. */
  readonly connectTimeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** A server beyond its limit of clients takes the connection and never greets. */
const CONNECT_TIMEOUT_MS = 15_000;

/**
 * Connects and holds a conversation. `proceed` takes the transport over in the same turn in which the
 * conversation ends: the socket must know at once where the next bytes go.
 */
export function converse<T, R>(
  conversation: Conversation<T>,
  options: ConverseOptions,
  proceed: (transport: Transport, result: T) => R,
): Promise<R> {
  const { signal, connectTimeoutMs = CONNECT_TIMEOUT_MS } = options;
  if (signal?.aborted) return Promise.reject(abortedError(signal));
  const name = options.name ?? formatNbdUri(options.server);
  return new Promise((resolve, reject) => {
    const onAbort = () => transport.destroy(abortedError(signal));
    const release = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    };
    const dialogue = new Dialogue(conversation, {
      send: (bytes) => transport.write(bytes, () => {}),
      done: (result) => {
        release();
        resolve(proceed(transport, result));
      },
      failed: (failure) => {
        release();
        const error = isAborted(failure) ? failure : locate(failure, name);
        transport.destroy(error as LacunaError);
        reject(error);
      },
    });
    // First, because a new socket asks at once where its first bytes go. The server speaks first.
    dialogue.start();
    const transport = new Transport(options.server, dialogue);
    const timer = setTimeout(() => transport.destroy(timedOut(connectTimeoutMs)), connectTimeoutMs);
    signal?.addEventListener('abort', onAbort);
  });
}

function timedOut(limitMs: number): LacunaError {
  return new LacunaError(
    'ERR_TIMEOUT',
    `the server did not complete the handshake within ${limitMs / 1000} s; ` +
      'it may be serving as many clients as it allows',
    { retryable: true },
  );
}
