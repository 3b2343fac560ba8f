import { abortedError, isAborted, LacunaError } from '../../../errors/index.js';
import { afterWaiting, LONGEST_TIMER_MS, onAbort } from '../../../util/index.js';
import {
  checkServerAddress,
  formatNbdUri,
  type NbdServerAddress,
  type NbdTls,
} from '../../address/index.js';
import { type Conversation, Dialogue } from '../../stream/index.js';
import { locate } from '../failures/index.js';
import { prepareTls, type Securer } from './secure-socket.js';
import { checkTimeLimit } from './time-limits.js';
import { Transport } from './transport.js';

export interface ConverseOptions {
  readonly server: NbdServerAddress;
  /** What the server must prove, and how this side proves itself; absent: in plain. */
  readonly tls?: NbdTls;
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
 *
 * @throws TypeError, RangeError for an address or a limit that is none; else as {@link locate} makes it.
 */
export async function converse<T, R>(
  conversation: Conversation<T>,
  options: ConverseOptions,
  proceed: (transport: Transport, result: T) => R,
): Promise<R> {
  const { signal, server, tls } = options;
  checkServerAddress(server);
  const { connectTimeoutMs = CONNECT_TIMEOUT_MS } = options;
  const limitMs = Math.min(checkTimeLimit('connectTimeoutMs', connectTimeoutMs), LONGEST_TIMER_MS);
  if (signal?.aborted) throw abortedError(signal);
  const name = options.name ?? formatNbdUri(server, '', tls);
  try {
    const securer = tls && (await prepareTls(tls, server));
    return await hold(conversation, { server, securer, limitMs, signal }, proceed);
  } catch (failure) {
    throw isAborted(failure) ? failure : locate(failure, name);
  }
}

/** How the conversation is held. */
interface Line {
  readonly server: NbdServerAddress;
  /** Absent: in plain. */
  readonly securer: Securer | undefined;
  readonly limitMs: number;
  readonly signal: AbortSignal | undefined;
}

function hold<T, R>(
  conversation: Conversation<T>,
  { server, securer, limitMs, signal }: Line,
  proceed: (transport: Transport, result: T) => R,
): Promise<R> {
  if (signal?.aborted) throw abortedError(signal);
  return new Promise((resolve, reject) => {
    const giveUp = () => transport.destroy(abortedError(signal));
    const release = () => {
      stopWaiting();
      signal?.removeEventListener('abort', giveUp);
    };
    const dialogue = new Dialogue(conversation, {
      send: (bytes) => transport.write(bytes, () => {}),
      secure: () => transport.secure(() => dialogue.secured()),
      done: (result) => {
        release();
        resolve(proceed(transport, result));
      },
      failed: (failure) => {
        release();
        transport.destroy(failure as LacunaError);
        reject(failure);
      },
    });
    // First, because a new socket asks at once where its first bytes go. The server speaks first.
    dialogue.start();
    const transport = new Transport(server, dialogue, securer);
    const stopWaiting = afterWaiting(limitMs, () => transport.destroy(timedOut(limitMs)));
    if (signal !== undefined) onAbort(signal, giveUp);
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
