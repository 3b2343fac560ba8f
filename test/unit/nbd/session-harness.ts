import { LacunaError } from 'lacuna/errors';
import { type Connection, Session, type SessionOptions } from '#dist/nbd/client/session/session.js';
import { CommandFlag } from '#dist/nbd/wire/constants.js';
import { REQUEST_BYTES, type RequestHeader } from '#dist/nbd/wire/requests.js';
import { requestAt } from '../../support/read-wire.js';
import { feed } from './feed.js';

export const SIZE = 2 ** 20;
export const ALLOCATION = 5;
export const DIRTY = 0x80000009;

/** A session without a socket: what it sends is kept, and the test decides when that is sent. */
export class Harness implements Connection {
  readonly session: Session;
  /** Everything the session wrote, copied when it was written. */
  readonly written: Uint8Array[] = [];
  readonly failures: LacunaError[] = [];
  readonly #held: (() => void)[] = [];
  readonly #holds: boolean;

  constructor(options: Partial<SessionOptions> & { holds?: boolean } = {}) {
    this.#holds = options.holds ?? false;
    this.session = new Session(this, {
      name: 'nbd://test/',
      requestTimeoutMs: 0,
      structured: true,
      extended: false,
      size: SIZE,
      contexts: new Map([
        [ALLOCATION, 'base:allocation'],
        [DIRTY, 'qemu:dirty-bitmap:b'],
      ]),
      ...options,
    });
  }

  cork(): void {}
  uncork(): void {}

  write(bytes: Uint8Array, sent: () => void): void {
    this.written.push(bytes.slice());
    if (this.#holds) this.#held.push(sent);
    else process.nextTick(sent);
  }

  /** Lets go of all that was written, as Node does when the kernel has taken it. */
  release(): void {
    for (const sent of this.#held.splice(0)) sent();
  }

  destroy(failure: LacunaError): void {
    this.failures.push(failure);
    this.session.closed(failure);
  }

  /** Delivers like the transport: what is thrown ends the connection. */
  deliver(bytes: Uint8Array, sizes?: readonly number[]): void {
    try {
      feed(this.session, bytes, sizes);
    } catch (error) {
      // Anything else was found out by luck, deep inside, and not by a check.
      if (!(error instanceof LacunaError)) throw error;
      this.destroy(error);
    }
  }

  /** Starts a read and returns its cookie with it. */
  async read(offset: number, target: Uint8Array, signal?: AbortSignal) {
    const { length } = target;
    return this.#submit({ command: 0, flags: 0, offset, length, target, signal });
  }

  async write1(offset: number, source: Uint8Array, signal?: AbortSignal) {
    const { length } = source;
    return this.#submit({ command: 1, flags: CommandFlag.fua, offset, length, source, signal });
  }

  async status(offset: number, length: number, signal?: AbortSignal) {
    const contexts = [ALLOCATION, DIRTY];
    return this.#submit({ command: 7, flags: 0, offset, length, contexts, signal });
  }

  async #submit(spec: Parameters<Session['submit']>[0]) {
    const before = this.written.length;
    const promise = this.session.submit(spec);
    // A test may look at the rejection later than the next turn.
    promise.catch(() => {});
    await new Promise((resolve) => setImmediate(resolve));
    const bytes = this.written[before];
    const cookie = requestAt(new DataView(bytes.buffer), bytes.length - REQUEST_BYTES);
    return { promise, cookie: cookie as RequestHeader };
  }
}
