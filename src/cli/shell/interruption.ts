/** The signals that ask the command to end, and what it exits with then. */
import { constants } from 'node:os';
import { Exit } from './exit.js';

/** Ctrl-C, a request to terminate, and a terminal or a session that goes away. */
export const ENDING_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export type EndingSignal = (typeof ENDING_SIGNALS)[number];

/** The reason of `shell.signal`: which signal it was. */
export class Interruption extends Error {
  readonly signal: EndingSignal;

  constructor(signal: EndingSignal) {
    super(signal);
    this.signal = signal;
  }
}

/** As shells have it: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP. */
export function exitCodeOfSignal(signal: EndingSignal): number {
  return 128 + constants.signals[signal];
}

/** What an interrupted command exits with. */
export function exitCodeOfAbort({ reason }: AbortSignal): number {
  return reason instanceof Interruption ? exitCodeOfSignal(reason.signal) : Exit.interrupted;
}

/** What to do to have it end at once, in the words of the first signal. */
export function secondSignal({ reason }: AbortSignal): string {
  const signal = reason instanceof Interruption ? reason.signal : 'SIGINT';
  return signal === 'SIGINT' ? 'Ctrl-C again' : `a second ${signal}`;
}
