/**
 * The client against servers that say anything. Each input is made from a seed of its own, which a failure
 * names: LACUNA_SEED repeats it. LACUNA_RUNS is how many there are in each group.
 */

import { LacunaError } from 'lacuna/errors';
import { parseNbdUri } from 'lacuna/nbd';
import { expect, it } from 'vitest';
import { handshake } from '#dist/nbd/client/handshake/handshake.js';
import { askInfo } from '#dist/nbd/client/handshake/information.js';
import { listExports } from '#dist/nbd/client/handshake/list.js';
import { type Conversation, Dialogue } from '#dist/nbd/stream/dialogue.js';
import { Command } from '#dist/nbd/wire/constants.js';
import { decodeBlockSizes } from '#dist/nbd/wire/infos.js';
import { writeExtendedRequest } from '#dist/nbd/wire/requests.js';
import { decodeStatusPayload, encodeStatusPayload } from '#dist/nbd/wire/status.js';
import { printable } from '#dist/nbd/wire/text.js';
import { viewOf } from '#dist/util/index.js';
import { runsOr } from '../support/long-run.js';
import { extendedChunkAt, extendedRequestAt, requestAt } from '../support/read-wire.js';
import { Random } from '../unit/bitmap/random.js';
import { feed } from '../unit/nbd/feed.js';
import { ALLOCATION, DIRTY, Harness } from '../unit/nbd/session-harness.js';
import {
  type Asked,
  damage,
  handshakeBytes,
  isContent,
  type Mode,
  replyBytes,
  UNTOUCHED,
} from './nbd-client-streams.js';

const INPUTS = runsOr(4000);
const GONE = new LacunaError('ERR_NBD_DISCONNECTED', 'gone');

/** Runs each input with its own seed; no test of vitest for each, of which a million would be too many. */
async function eachSeed(test: (random: Random) => void | Promise<void>): Promise<void> {
  const first = Random.seed();
  for (let seed = first; seed < first + INPUTS; seed++) {
    try {
      await test(new Random(seed));
    } catch (cause) {
      throw new Error(`LACUNA_SEED=${seed} shows it again: ${(cause as Error).message}`, { cause });
    }
    if (seed % 64 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
}

/** How a socket might deliver; not byte by byte what is long, which takes long and shows nothing new. */
function sizesOf(random: Random, bytes: Uint8Array): number[] {
  const all = [Number.POSITIVE_INFINITY];
  if (bytes.length > 4000) return random.pick([all, [random.between(1000, 9000)]]);
  return random.pick([[1], all, [random.between(1, 64), random.between(1, 9)]]);
}

function anyConversation(random: Random): Conversation<unknown> {
  const tls = random.between(0, 3) === 0;
  const extended = random.between(0, 1) === 0;
  const contexts = random.pick([[], ['x:y']]);
  switch (random.between(0, 3)) {
    case 0:
      return listExports({ tls });
    case 1:
      return askInfo({ export: 'disk', tls });
    default:
      return handshake({ export: 'disk', contexts, tls, extended });
  }
}

it('no bytes of a server crash a session of the client, and each session ends once', async () => {
  await eachSeed((random) => {
    const ends: unknown[] = [];
    const dialogue: Dialogue<unknown> = new Dialogue(anyConversation(random), {
      send: () => {},
      secure: () => dialogue.secured(),
      done: () => ends.push(undefined),
      failed: (error) => ends.push(error),
    });
    dialogue.start();
    const bytes = damage(random, handshakeBytes(random));
    const sizes = sizesOf(random, bytes);
    for (let at = 0; at < bytes.length && ends.length === 0; ) {
      const count = Math.min(dialogue.buffer().length, bytes.length - at);
      feed(dialogue, bytes.subarray(at, at + count), sizes);
      at += count;
    }
    dialogue.closed(GONE);
    expect(ends.length).toBe(1);
    if (ends[0] !== undefined) expect(ends[0]).toBeInstanceOf(LacunaError);
  });
});

const GUARD = 64;

/** Requests of all kinds in flight; their cookies are known, as slots are used in order. */
function ask(random: Random, mode: Mode) {
  const harness = new Harness({ structured: mode !== 'simple', extended: mode === 'extended' });
  const targets: Uint8Array[] = [];
  const asked: Asked[] = [];
  const promises: Promise<unknown>[] = [];
  for (let low = 0, count = random.between(1, 5); low < count; low++) {
    const kind = random.pick(mode === 'simple' ? ['read', 'write'] : ['read', 'write', 'status']);
    const length = random.between(0, 15) === 0 ? 40_000 : random.pick([1, 100, 512, 600]);
    const request = { offset: low * 65536, length, flags: 0 };
    const memory = new Uint8Array(length + 2 * GUARD).fill(UNTOUCHED);
    const target = memory.subarray(GUARD, GUARD + length);
    targets.push(memory);
    asked.push({ kind, ...request, cookieHigh: 1, cookieLow: low } as Asked);
    const spec =
      kind === 'read'
        ? { ...request, command: Command.read, target }
        : kind === 'write'
          ? { ...request, command: Command.write }
          : { ...request, command: Command.blockStatus, contexts: [ALLOCATION, DIRTY] };
    promises.push(harness.session.submit(spec));
  }
  return { harness, targets, asked, promises };
}

it('no bytes of a server crash the client in the transmission, write outside a target, or leave a request open', async () => {
  await eachSeed(async (random) => {
    const mode = random.pick(['simple', 'structured', 'extended'] as const);
    const { harness, targets, asked, promises } = ask(random, mode);
    const results = Promise.allSettled(promises);
    const right = replyBytes(random, mode, asked);
    const isRight = random.between(0, 7) === 0;
    const bytes = isRight ? right : damage(random, right);
    harness.deliver(bytes, sizesOf(random, bytes));
    if (isRight) {
      expect(harness.failures).toEqual([]);
      expect(harness.session.pending).toBe(0);
    } else if (harness.failures.length === 0) harness.destroy(GONE);
    const settled = await results;
    for (const [i, memory] of targets.entries()) {
      const end = memory.length - GUARD;
      const around = [memory.subarray(0, GUARD), memory.subarray(end)];
      expect(around.every((part) => part.every((byte) => byte === UNTOUCHED))).toBe(true);
      const result = settled[i];
      if (result.status === 'rejected') expect(result.reason).toBeInstanceOf(LacunaError);
      else if (asked[i].kind === 'read') {
        const found = memory.subarray(GUARD, end);
        expect(found.includes(UNTOUCHED)).toBe(false);
        if (isRight) expect(isContent(found, asked[i].offset)).toBe(true);
      }
    }
    expect(harness.session.pending).toBe(0);
  });
});

it('no bytes crash the readers of messages, and a message that was written is read back', async () => {
  await eachSeed((random) => {
    const bytes = Uint8Array.from({ length: 40 }, () => random.between(0, 255));
    const view = viewOf(bytes);
    requestAt(view, 0);
    extendedRequestAt(view, 0);
    extendedChunkAt(view, 0);
    const sizes = decodeBlockSizes(bytes.subarray(0, random.between(0, 40)));
    if (sizes !== undefined) expect(sizes.maximum).toBeGreaterThanOrEqual(sizes.minimum);
    decodeStatusPayload(bytes.subarray(0, random.between(0, 40)));
    const number = () => Math.floor(2 ** random.between(0, 53) * random.fraction());
    const request = {
      ...{ flags: random.between(0, 65535), command: random.between(0, 65535) },
      ...{
        cookieHigh: random.between(0, 2 ** 32 - 1),
        cookieLow: random.between(0, 2 ** 32 - 1),
      },
      ...{ offset: number(), length: number() },
    };
    writeExtendedRequest(view, 8, request);
    expect(extendedRequestAt(view, 8)).toEqual(request);
    const status = { effectLength: number(), contextIds: [request.cookieHigh] };
    expect(decodeStatusPayload(encodeStatusPayload(status))).toEqual(status);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be left
    expect(printable(String.fromCharCode(...bytes))).not.toMatch(/[\u0000-\u001f]/);
  });
});

const PIECES = [
  ...['nbd', 'nbds', '+unix', '+vsock', '://', '/', '//', '@', ':', '[', ']', '::1', '%', '%25'],
  ...['?', '&', ';', '=', 'socket', 'tls-type', 'psk', 'x509', 'tls-hostname', 'tls-verify-peer'],
  ...['tls-psk-file', 'host', '10809', '0', '\u0000', '%00', 'ü', '\ud800', '#', ' ', 'a'],
];

it('no text crashes the reader of URIs', async () => {
  await eachSeed((random) => {
    const length = random.between(1, 12);
    const head = random.between(0, 1) === 0 ? 'nbds+unix:///?socket=/s' : 'nbd://';
    const text = head + Array.from({ length }, () => random.pick(PIECES)).join('');
    try {
      parseNbdUri(text, { localFiles: random.between(0, 1) === 0 });
    } catch (error) {
      const known = error instanceof TypeError || error instanceof LacunaError;
      if (!known || !(error as Error).message.includes(text)) throw error;
    }
  });
});
