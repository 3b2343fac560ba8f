import { setTimeout } from 'node:timers/promises';
import { abortedError } from '../../../errors/index.js';
import { checkGiven } from '../../../util/index.js';
import { AN_ADDRESS } from '../../address/index.js';
import type { NbdConnectOptions } from '../export/index.js';
import { NbdClient } from '../export/index.js';
import { backoff, mayConnectLater } from './reconnect-rules.js';

/**
 * Connects, and tries again for `limitMs` while nobody listens, the server does not answer, or it does not
 * have the export yet. A limit of 0 tries once.
 *
 * @throws what `NbdClient.connect` threw last.
 */
export async function connectPatiently(
  options: NbdConnectOptions,
  limitMs: number,
): Promise<NbdClient> {
  if (limitMs === 0) return NbdClient.connect(options);
  checkGiven('connectPatiently', 'server', options?.server, AN_ADDRESS);
  let leftMs = limitMs;
  const { connectTimeoutMs = Number.POSITIVE_INFINITY, signal } = options;
  for (const delayMs of backoff()) {
    const attemptMs = Math.min(connectTimeoutMs, Math.max(leftMs, SHORTEST_MS));
    const limited = { ...options, connectTimeoutMs: attemptMs };
    const began = performance.now();
    try {
      return await NbdClient.connect(limited);
    } catch (error) {
      // Not more than was granted: what is beyond, this process may have been stopped for.
      leftMs -= Math.min(performance.now() - began, attemptMs);
      if (!mayConnectLater(error) || leftMs <= 0) throw error;
      const pauseMs = Math.min(delayMs, leftMs);
      await pause(pauseMs, signal);
      leftMs -= pauseMs;
    }
  }
  throw new Error('the waits never end');
}

/** The last attempt, made when the time has just passed, must be able to succeed. */
const SHORTEST_MS = 100;

async function pause(delayMs: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await setTimeout(delayMs, undefined, { signal });
  } catch {
    throw abortedError(signal);
  }
}
