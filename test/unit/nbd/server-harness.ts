import type { LacunaError } from 'lacuna/errors';
import type { NbdExportOptions } from 'lacuna/nbd';
import { ServedExport } from '#dist/nbd/server/export/served-export.js';
import type { Entered, Offer, Outcome } from '#dist/nbd/server/handshake/agreement.js';
import { negotiate, negotiateInTls } from '#dist/nbd/server/handshake/negotiation.js';
import { BufferPool } from '#dist/nbd/server/limits/buffer-pool.js';
import { resolveLimits } from '#dist/nbd/server/limits/limits.js';
import { MemoryBudget, planBudget } from '#dist/nbd/server/limits/memory-budget.js';
import { ServerSession, type SessionConnection } from '#dist/nbd/server/session/session.js';
import { Dialogue } from '#dist/nbd/stream/dialogue.js';
import { OptionReply } from '#dist/nbd/wire/constants.js';
import {
  EXTENDED_REQUEST_BYTES,
  REQUEST_BYTES,
  writeExtendedRequest,
  writeRequest,
} from '#dist/nbd/wire/requests.js';
import { fakeDevice } from '../../support/fake-device.js';
import { concat } from '../../support/hostile-nbd-wire.js';
import { feed } from './feed.js';

export const SIZE = 2 ** 20;

/** A bitmap with one dirty run, as far as a server looks at bitmaps. */
export function bitmapOf(size: number, ...runs: { offset: number; length: number }[]) {
  return {
    size,
    *ranges(from = 0, end = size) {
      for (const { offset, length } of runs) {
        const start = Math.max(from, offset);
        const stop = Math.min(end, offset + length);
        if (start < stop) yield { offset: start, length: stop - start };
      }
    },
  };
}

export function served(options: Partial<NbdExportOptions> = {}): ServedExport {
  const device = options.device ?? fakeDevice(SIZE);
  return new ServedExport({ name: '', ...options, device }, 2 ** 25);
}

export function offerOf(
  exports: readonly ServedExport[] = [served()],
  tls: Offer['tls'] = 'off',
): Offer {
  return { tls, exports: new Map(exports.map((each) => [each.name, each])) };
}

export interface OptionAnswer {
  readonly option: number;
  readonly type: number;
  readonly payload: Uint8Array;
}

/** A handshake without a socket. */
export class Talk {
  outcome: Outcome | undefined;
  failure: LacunaError | undefined;
  readonly #dialogue: Dialogue<Outcome>;
  #said: Uint8Array = new Uint8Array(0);

  constructor(offer: Offer = offerOf(), tls = false) {
    const conversation = tls ? negotiateInTls(offer, false) : negotiate(offer);
    this.#dialogue = new Dialogue(conversation, {
      send: (bytes) => {
        this.#said = concat(this.#said, bytes);
      },
      done: (outcome) => {
        this.outcome = outcome;
        if ('answer' in outcome) this.#said = concat(this.#said, outcome.answer);
      },
      failed: (failure) => {
        this.failure = failure as LacunaError;
      },
    });
    this.#dialogue.start();
  }

  get over(): boolean {
    return this.outcome !== undefined || this.failure !== undefined;
  }

  /** Takes the greeting and answers it with flags. */
  greeted(flags = 3): this {
    this.take();
    this.say(Uint8Array.of(0, 0, 0, flags));
    return this;
  }

  say(bytes: Uint8Array, sizes?: readonly number[]): void {
    for (let at = 0; at < bytes.length && !this.over; ) {
      const count = Math.min(bytes.length - at, this.#dialogue.buffer().length);
      feed(this.#dialogue, bytes.subarray(at, at + count), sizes);
      at += count;
    }
  }

  /** What the server has said since the last time. */
  take(): Uint8Array {
    const said = this.#said;
    this.#said = new Uint8Array(0);
    return said;
  }

  /** Asks an option and returns what is answered. */
  ask(option: Uint8Array): OptionAnswer[] {
    this.say(option);
    return optionAnswers(this.take());
  }

  /** The type of the only, or last, answer. */
  verdict(option: Uint8Array): number | undefined {
    return this.ask(option).at(-1)?.type;
  }
}

export function optionAnswers(bytes: Uint8Array): OptionAnswer[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const answers: OptionAnswer[] = [];
  for (let at = 0; at < bytes.length; ) {
    if (view.getBigUint64(at) !== 0x3e889045565a9n) throw new Error('no magic of an option reply');
    const length = view.getUint32(at + 16);
    const payload = bytes.slice(at + 20, at + 20 + length);
    answers.push({ option: view.getUint32(at + 8), type: view.getUint32(at + 12), payload });
    at += 20 + length;
  }
  return answers;
}

export const granted = (answers: readonly OptionAnswer[]): string[] =>
  answers
    .filter(({ type }) => type === OptionReply.metaContext)
    .map(({ payload }) => Buffer.from(payload.subarray(4)).toString());

export interface RequestFields {
  flags?: number;
  cookie?: number;
  offset?: number;
  length?: number;
  payload?: Uint8Array;
}

export function request(command: number, fields: RequestFields = {}): Uint8Array {
  const { flags = 0, cookie = 1, offset = 0, payload = new Uint8Array(0) } = fields;
  const header = { flags, command, cookieHigh: 7, cookieLow: cookie, offset };
  const bytes = new Uint8Array(REQUEST_BYTES);
  const length = fields.length ?? payload.length;
  writeRequest(new DataView(bytes.buffer), 0, { ...header, length });
  return concat(bytes, payload);
}

export function extendedRequest(command: number, fields: RequestFields = {}): Uint8Array {
  const { flags = 0, cookie = 1, offset = 0, payload = new Uint8Array(0) } = fields;
  const header = { flags, command, cookieHigh: 7, cookieLow: cookie, offset };
  const bytes = new Uint8Array(EXTENDED_REQUEST_BYTES);
  const length = fields.length ?? payload.length;
  writeExtendedRequest(new DataView(bytes.buffer), 0, { ...header, length });
  return concat(bytes, payload);
}

/** One message of a server: a simple reply, or a chunk. */
export interface Reply {
  readonly cookie: number;
  readonly kind: 'simple' | 'chunk' | 'extended';
  readonly done: boolean;
  /** Type of a chunk, error of a simple reply. */
  readonly code: number;
  readonly offset?: number;
  readonly body: Buffer;
}

/** A transmission without a socket. */
export class Transmission implements SessionConnection {
  readonly session: ServerSession;
  readonly budget: MemoryBudget;
  readonly deviceErrors: unknown[] = [];
  failure: unknown;
  paused = false;
  /** Set by `end`. */
  over = false;
  /** The socket takes nothing while it is true. */
  holds = false;
  #room: Uint8Array | undefined;
  #sent: Uint8Array[] = [];
  readonly #held: (() => void)[] = [];

  constructor(
    entered: Partial<Entered> = {},
    limits: Parameters<typeof resolveLimits>[0] = undefined,
    idleTimeoutMs = 0,
    budget = new MemoryBudget(planBudget(undefined, 100)),
  ) {
    this.budget = budget;
    const each = entered.export ?? served();
    const agreed = { structured: true, extended: false, contexts: each.contexts };
    this.session = new ServerSession(
      this,
      { ...agreed, ...entered, export: each },
      {
        limits: resolveLimits(limits),
        pool: new BufferPool(),
        idleTimeoutMs,
        onDeviceError: (error) => this.deviceErrors.push(error),
      },
      this.budget.open()!,
    );
  }

  cork(): void {}
  uncork(): void {}

  write(bytes: Uint8Array, sent: () => void): void {
    // The very memory: if it changes before `sent`, so does what is sent.
    this.#sent.push(bytes);
    const then = () => {
      // Not `slice`, which for a Buffer is the same memory.
      this.#sent[this.#sent.indexOf(bytes)] = new Uint8Array(bytes);
      sent();
    };
    if (this.holds) this.#held.push(then);
    else process.nextTick(then);
  }

  /** The socket takes what it was given. */
  release(): void {
    this.holds = false;
    for (const then of this.#held.splice(0)) then();
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  end(): void {
    this.over = true;
  }

  destroy(failure: unknown): void {
    this.failure = failure;
    this.session.closed();
  }

  /** Delivers as a socket does: not while it is paused. */
  async say(bytes: Uint8Array, sizes: readonly number[] = [Number.POSITIVE_INFINITY]) {
    for (let at = 0, turn = 0; at < bytes.length; ) {
      for (let waits = 0; this.paused && waits < 50; waits++) await settle();
      if (this.paused || this.over || this.failure !== undefined) return;
      this.#room ??= this.session.buffer();
      const count = Math.min(this.#room.length, bytes.length - at, sizes[turn++ % sizes.length]);
      if (count === 0) throw new Error('the session has no room: a socket would fail');
      this.#room.set(bytes.subarray(at, at + count));
      at += count;
      this.session.received(count);
      // As Node does: at once, even when the session has paused it and will go on with what it has.
      this.#room = this.session.buffer();
    }
  }

  /** Delivers, waits for what comes of it, and returns what was answered. */
  async ask(bytes: Uint8Array, sizes?: readonly number[]): Promise<Uint8Array> {
    await this.say(bytes, sizes);
    await settle();
    return this.take();
  }

  take(): Uint8Array {
    const bytes = concat(...this.#sent);
    this.#sent = [];
    return bytes;
  }
}

export async function settle(): Promise<void> {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** Chunks, compact or extended, and simple replies without a payload. */
export function replies(bytes: Uint8Array): Reply[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const found: Reply[] = [];
  for (let at = 0; at < bytes.length; ) {
    const magic = view.getUint32(at);
    if (magic === 0x67446698) {
      const [code, cookie] = [view.getUint32(at + 4), view.getUint32(at + 12)];
      found.push({ kind: 'simple', done: true, code, cookie, body: Buffer.alloc(0) });
      at += 16;
      continue;
    }
    const extended = magic === 0x6e8a278c;
    if (!extended && magic !== 0x668e33ef) throw new Error(`no reply: ${magic.toString(16)}`);
    const head = extended ? 32 : 20;
    const length = extended ? Number(view.getBigUint64(at + 24)) : view.getUint32(at + 16);
    found.push({
      kind: extended ? 'extended' : 'chunk',
      done: view.getUint16(at + 4) === 1,
      code: view.getUint16(at + 6),
      cookie: view.getUint32(at + 12),
      ...(extended && { offset: Number(view.getBigUint64(at + 16)) }),
      body: Buffer.from(bytes.slice(at + head, at + head + length)),
    });
    at += head + length;
  }
  return found;
}
