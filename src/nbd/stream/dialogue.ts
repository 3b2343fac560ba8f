import assert from 'node:assert/strict';
import type { LacunaError } from '../../errors/index.js';
import type { ByteSink } from './byte-sink.js';

/** What a conversation wants next: exactly so many bytes from the peer, to say something, or TLS. */
export type Step =
  | { readonly read: number }
  | { readonly write: Uint8Array }
  | { readonly secure: TooEarly };

/** What it means that bytes come in plain while TLS is put over the stream. */
export type TooEarly = () => LacunaError;

/**
 * A conversation in fixed steps, such as the handshake, as a generator: it reads like the protocol's
 * text and knows no socket. It is sent the bytes that it asked to read.
 */
export type Conversation<T> = Generator<Step, T, Uint8Array>;

const NOTHING = new Uint8Array(0);

/** Asks for `count` bytes. The caller has bounded `count`: this is memory that a peer makes us take. */
export function* take(count: number): Conversation<Uint8Array> {
  return count === 0 ? NOTHING : yield { read: count };
}

export function* say(bytes: Uint8Array): Conversation<void> {
  yield { write: bytes };
}

/** Goes on over TLS. Until that stands, not a byte may come in plain. */
export function* secure(tooEarly: TooEarly): Conversation<void> {
  yield { secure: tooEarly };
}

export interface DialogueEvents<T> {
  send(bytes: Uint8Array): void;
  /** Puts TLS over the stream; {@link Dialogue.secured} is called when it stands. For conversations that ask. */
  secure?(): void;
  done(result: T): void;
  failed(error: unknown): void;
}

/**
 * Runs a conversation over a stream. It never takes a byte more than the conversation asked for, so
 * that whatever speaks next on the same stream begins exactly where this ended.
 */
export class Dialogue<T> implements ByteSink {
  readonly #conversation: Conversation<T>;
  readonly #events: DialogueEvents<T>;
  #wanted: Uint8Array = new Uint8Array(1);
  #filled = 0;
  #ended = false;
  #securing: TooEarly | undefined;

  constructor(conversation: Conversation<T>, events: DialogueEvents<T>) {
    this.#conversation = conversation;
    this.#events = events;
  }

  /** Runs up to the first bytes that are needed from the peer. */
  start(): void {
    this.#run(() => this.#conversation.next(NOTHING));
  }

  buffer(): Uint8Array {
    return this.#filled === 0 ? this.#wanted : this.#wanted.subarray(this.#filled);
  }

  /** TLS stands, and whatever is received from now on came through it. */
  secured(): void {
    this.#securing = undefined;
    this.#run(() => this.#conversation.next(NOTHING));
  }

  received(count: number): void {
    // Somebody in between could otherwise have his words taken for the peer's (CVE-2021-3716 was a server's).
    if (this.#securing !== undefined) throw this.#securing();
    this.#filled += count;
    if (this.#ended || this.#filled < this.#wanted.length) return;
    const bytes = this.#wanted;
    this.#run(() => this.#conversation.next(bytes));
  }

  /** The conversation hears of it where it waits: at some points the protocol gives it a meaning. */
  closed(failure: LacunaError): void {
    this.#run(() => this.#conversation.throw(failure));
  }

  #run(resume: () => IteratorResult<Step, T>): void {
    if (this.#ended) return;
    try {
      let result = resume();
      while (!result.done && 'write' in result.value) {
        this.#events.send(result.value.write);
        result = this.#conversation.next(NOTHING);
      }
      if (!result.done) {
        this.#await(result.value);
        return;
      }
      this.#ended = true;
      this.#events.done(result.value);
    } catch (error) {
      this.#ended = true;
      this.#events.failed(error);
    }
  }

  #await(step: Step): void {
    this.#filled = 0;
    if ('read' in step) this.#wanted = new Uint8Array(step.read);
    else if ('secure' in step) this.#secure(step.secure);
  }

  #secure(tooEarly: TooEarly): void {
    this.#wanted = new Uint8Array(1);
    this.#securing = tooEarly;
    assert(this.#events.secure !== undefined, 'nobody can put TLS over this stream');
    this.#events.secure();
  }
}
