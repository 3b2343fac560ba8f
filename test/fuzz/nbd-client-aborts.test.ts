/**
 * The client whose callers give up at any moment, while a server answers, well or not, and the socket holds memory
 * that was lent to it. A failure names the seed that repeats it.
 */
import { LacunaError } from 'lacuna/errors';
import { expect, it } from 'vitest';
import { type Connection, Session } from '#dist/nbd/client/session/session.js';
import { Command } from '#dist/nbd/wire/constants.js';
import { runsOr } from '../support/long-run.js';
import { Random } from '../unit/bitmap/random.js';
import { ALLOCATION, DIRTY, SIZE } from '../unit/nbd/session-harness.js';
import {
  type Asked,
  damage,
  isContent,
  type Mode,
  replyBytes,
  UNTOUCHED,
} from './nbd-client-streams.js';

const INPUTS = runsOr(1500);
/** What a caller puts into its memory as soon as it has it back. */
const MINE = 0xdd;
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** A socket as Node's is: it asks for memory long before bytes come, and holds what it sends for a while. */
class Socket implements Connection {
  readonly session: Session;
  readonly failures: LacunaError[] = [];
  readonly #random: Random;
  readonly #sending: { bytes: Uint8Array; sent: () => void }[] = [];
  #room: Uint8Array;

  constructor(random: Random, mode: Mode) {
    this.#random = random;
    this.session = new Session(this, {
      name: 'nbd://test/',
      requestTimeoutMs: 0,
      structured: mode !== 'simple',
      extended: mode === 'extended',
      size: SIZE,
      contexts: new Map([
        [ALLOCATION, 'base:allocation'],
        [DIRTY, 'qemu:dirty-bitmap:b'],
      ]),
    });
    this.#room = this.session.buffer();
  }

  get open(): boolean {
    return this.failures.length === 0;
  }

  cork(): void {}
  uncork(): void {}

  write(bytes: Uint8Array, sent: () => void): void {
    this.#sending.push({ bytes, sent });
  }

  /** Lets go of some of what it sends, the oldest first. */
  release(): void {
    const count = this.#random.between(0, this.#sending.length);
    for (const { sent } of this.#sending.splice(0, count)) sent();
  }

  holds(memory: Uint8Array): boolean {
    return this.open && this.#sending.some(({ bytes }) => bytes.buffer === memory.buffer);
  }

  /** Receives some of `bytes`; returns how many. */
  receive(bytes: Uint8Array): number {
    if (!this.open) return bytes.length;
    const count = Math.min(bytes.length, this.#room.length, this.#random.between(1, 50_000));
    this.#room.set(bytes.subarray(0, count));
    try {
      this.session.received(count);
    } catch (error) {
      if (!(error instanceof LacunaError)) throw error;
      this.destroy(error);
    }
    if (this.open) this.#room = this.session.buffer();
    return count;
  }

  destroy(failure: LacunaError): void {
    if (!this.open) return;
    this.failures.push(failure);
    this.session.closed(failure);
  }
}

interface Caller {
  readonly abort: AbortController;
  readonly memory: Uint8Array;
  readonly done: Promise<void>;
  settled: number;
}

/** Makes a request, and uses its memory again in the moment in which it may. */
function call(socket: Socket, asked: Asked, isRight: boolean): Caller {
  const { kind, offset, length } = asked;
  const memory = new Uint8Array(length).fill(UNTOUCHED);
  const abort = new AbortController();
  const range = { offset, length, flags: 0, signal: abort.signal };
  const spec = {
    read: { ...range, command: Command.read, target: memory },
    write: { ...range, command: Command.write, source: memory },
    status: { ...range, command: Command.blockStatus, contexts: [ALLOCATION, DIRTY] },
  }[kind];
  const settle = () => {
    caller.settled++;
    if (socket.holds(memory)) throw new Error('the socket still sends what its caller has back');
  };
  const caller: Caller = {
    abort,
    memory,
    settled: 0,
    done: socket.session.submit(spec).then(
      () => {
        settle();
        if (kind === 'read') expect(memory.includes(UNTOUCHED)).toBe(false);
        if (kind === 'read' && isRight) expect(isContent(memory, offset)).toBe(true);
        memory.fill(MINE);
      },
      (error) => {
        settle();
        expect(error).toBeInstanceOf(LacunaError);
        memory.fill(MINE);
      },
    ),
  };
  return caller;
}

function anyRequests(random: Random, mode: Mode): Asked[] {
  const kinds = mode === 'simple' ? ['read', 'write'] : ['read', 'write', 'status'];
  return Array.from({ length: random.between(1, 6) }, (_, cookieLow) => {
    const length = random.pick([1, 100, 600, 40_000, 70_000]);
    return {
      kind: random.pick(kinds),
      offset: cookieLow * 131_072,
      length,
      cookieHigh: 1,
      cookieLow,
    };
  }) as Asked[];
}

async function live(random: Random): Promise<void> {
  const mode = random.pick(['simple', 'structured', 'extended'] as const);
  const socket = new Socket(random, mode);
  const asked = anyRequests(random, mode);
  const isRight = random.between(0, 1) === 0;
  const callers = asked.map((request) => call(socket, request, isRight));
  const right = replyBytes(random, mode, asked);
  const bytes = isRight ? right : damage(random, right);
  let drained: Promise<void> | undefined;
  for (let at = 0; at < bytes.length && socket.open; ) {
    const step = random.between(0, 9);
    if (step < 6) at += socket.receive(bytes.subarray(at));
    else if (step === 6) random.pick(callers).abort.abort();
    else if (step === 7) socket.release();
    else if (step === 8 && random.between(0, 9) === 0) drained ??= socket.session.drain();
    await turn();
  }
  if (isRight) expect(socket.failures).toEqual([]);
  for (let i = 0; isRight && i < 1000 && socket.session.pending > 0; i++) socket.release();
  if (isRight) expect(socket.session.pending).toBe(0);
  socket.destroy(new LacunaError('ERR_NBD_DISCONNECTED', 'gone'));
  await Promise.all(callers.map(({ done }) => done));
  await drained;
  await turn();
  for (const { settled, memory } of callers) {
    expect(settled).toBe(1);
    expect(Buffer.alloc(memory.length, MINE).equals(memory)).toBe(true);
  }
}

it('requests whose callers give up give their memory back once, and touch it no more', async () => {
  const first = Random.seed();
  for (let seed = first; seed < first + INPUTS; seed++) {
    try {
      await live(new Random(seed));
    } catch (cause) {
      throw new Error(`LACUNA_SEED=${seed} shows it again: ${(cause as Error).message}`, {
        cause,
      });
    }
  }
});
