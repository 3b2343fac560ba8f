import type { LacunaError } from 'lacuna/errors';
import { type Conversation, Dialogue } from '#dist/nbd/stream/dialogue.js';
import { feed } from './feed.js';

/** What became of a conversation. */
export interface Outcome<T> {
  result?: T;
  error?: LacunaError;
  /** Options that were asked, in order. */
  sent: Uint8Array[];
}

/**
 * Plays a client's side of the negotiation against bytes that a server would send, until it has ended; in pieces of
 * `sizes`, if there are any.
 */
export function talk<T>(
  conversation: Conversation<T>,
  bytes: Uint8Array,
  sizes?: readonly number[],
): Outcome<T> & { dialogue: Dialogue<T> } {
  const outcome: Outcome<T> = { sent: [] };
  const dialogue: Dialogue<T> = new Dialogue(conversation, {
    send: (sent) => outcome.sent.push(sent),
    secure: () => dialogue.secured(),
    done: (result) => {
      outcome.result = result;
    },
    failed: (error) => {
      outcome.error = error as LacunaError;
    },
  });
  dialogue.start();
  const ended = () => outcome.result !== undefined || outcome.error !== undefined;
  for (let at = 0; at < bytes.length && !ended(); ) {
    const size = Math.min(sizes?.[at % sizes.length] ?? bytes.length, dialogue.buffer().length);
    feed(dialogue, bytes.subarray(at, at + size));
    at += size;
  }
  return Object.assign(outcome, { dialogue });
}
