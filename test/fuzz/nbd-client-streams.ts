/** What a server may say to a client, right and then damaged. */

import { CHUNK_DONE, Chunk, NBD_MAGIC, OPTION_MAGIC, Option } from '#dist/nbd/wire/constants.js';
import { encodeOptionReply } from '#dist/nbd/wire/option-replies.js';
import {
  type Cookie,
  EXTENDED_CHUNK_BYTES,
  writeExtendedChunkHeader,
} from '#dist/nbd/wire/replies.js';
import * as wire from '../support/hostile-nbd-wire.js';
import type { Random } from '../unit/bitmap/random.js';
import { ALLOCATION, DIRTY } from '../unit/nbd/session-harness.js';

/** Never sent, so that a target's bytes that were not received are told from those that were. */
export const UNTOUCHED = 0xee;
const VALUES = [0, 1, 2, 3, 5, 6, 7, 11, 0x7f, 0x80, 0xff];
const CONTEXT_NAMES = ['base:allocation', 'x:y', ''];

/** Some bytes overwritten, some cut off, some rubbish behind, or a part twice. */
export function damage(random: Random, bytes: Uint8Array): Uint8Array {
  const copy = bytes.slice();
  for (let count = random.between(0, 3); count > 0 && copy.length > 0; count--) {
    copy[random.between(0, copy.length - 1)] = random.pick(VALUES);
  }
  const cut = random.between(0, 3) === 0 ? random.between(0, copy.length) : copy.length;
  const kept = copy.subarray(0, cut);
  switch (random.between(0, 5)) {
    case 0:
      return wire.concat(kept, junk(random, random.between(0, 80)));
    case 1: {
      const from = random.between(0, kept.length);
      return wire.concat(kept, kept.subarray(from, random.between(from, kept.length)));
    }
    default:
      return kept;
  }
}

function junk(random: Random, length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, () => {
    const value = random.between(0, 255);
    return value === UNTOUCHED ? 0 : value;
  });
}

/** A whole handshake of any kind, as the answers to options that may or may not be asked. */
export function handshakeBytes(random: Random): Uint8Array {
  const parts = [
    wire.numbers([8, NBD_MAGIC], [8, OPTION_MAGIC], [2, random.pick([0, 1, 2, 3, 3, 3, 0xffff])]),
  ];
  for (const option of optionsIn(random)) {
    for (let count = random.between(0, 3); count > 0; count--) {
      parts.push(encodeOptionReply(option, random.pick([1, 2, 3, 4]), payload(random)));
    }
    const end = random.pick([1, 1, 1, 0x80000001, 0x80000005, 0x80000006]);
    const text = end === 1 ? new Uint8Array(0) : junk(random, random.between(0, 9));
    parts.push(encodeOptionReply(option, end, text));
  }
  return wire.concat(...parts);
}

function optionsIn(random: Random): number[] {
  const likely = [Option.startTls, Option.extendedHeaders, Option.structuredReply];
  const first = likely.filter(() => random.between(0, 2) > 0);
  const contexts = random.pick([Option.setMetaContext, Option.listMetaContext]);
  return [...first, contexts, random.pick([Option.go, Option.info, Option.list])];
}

function payload(random: Random): Uint8Array {
  const name = Buffer.from(random.pick(CONTEXT_NAMES));
  switch (random.between(0, 5)) {
    case 0:
      return wire.numbers([2, 0], [8, random.pick([0, 4096, 2 ** 40, 2 ** 53])], [2, 0x1fff]);
    case 1:
      return wire.numbers([2, 3], [4, random.pick([1, 512, 3])], [4, 4096], [4, 2 ** 25]);
    case 2:
      return wire.concat(wire.numbers([4, random.between(0, 2)]), name);
    case 3:
      return wire.concat(wire.numbers([4, name.length]), name, junk(random, 3));
    case 4:
      return wire.concat(wire.numbers([2, random.between(1, 2)]), name);
    default:
      return junk(random, random.between(0, 20));
  }
}

export type Mode = 'simple' | 'structured' | 'extended';

/** A request that is pending, as far as a reply must know it. */
export interface Asked extends Cookie {
  readonly kind: 'read' | 'write' | 'status';
  readonly offset: number;
  readonly length: number;
}

/** Replies to all requests, their chunks in any order. */
export function replyBytes(random: Random, mode: Mode, asked: readonly Asked[]): Uint8Array {
  const queues = asked.map((request) => repliesTo(random, mode, request));
  const parts: Uint8Array[] = [];
  for (let left = queues; left.length > 0; left = left.filter((queue) => queue.length > 0)) {
    const next = random.pick(left).shift();
    if (next !== undefined) parts.push(next);
  }
  return wire.concat(...parts);
}

/** What the disk holds, as far as it is no hole: every byte tells its place, and none is 0 or {@link UNTOUCHED}. */
function contentAt(offset: number, length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, i) => byteAt(offset + i));
}

const byteAt = (offset: number) => 1 + ((offset ^ (offset >>> 8)) % 200);

/** Whether a read that began at `offset` found what the disk holds there, holes anywhere. */
export function isContent(bytes: Uint8Array, offset: number): boolean {
  return bytes.every((byte, i) => byte === 0 || byte === byteAt(offset + i));
}

function repliesTo(random: Random, mode: Mode, request: Asked): Uint8Array[] {
  const error = random.between(0, 9) === 0 ? random.pick([5, 28, 108]) : 0;
  if (mode === 'simple') {
    const bytes =
      request.kind === 'read' && error === 0
        ? contentAt(request.offset, request.length)
        : undefined;
    return [wire.simpleReply(request, error, bytes)];
  }
  const chunks: [number, Uint8Array][] = [];
  if (request.kind === 'read') chunks.push(...readChunks(random, request));
  if (request.kind === 'status') {
    for (const id of [ALLOCATION, DIRTY]) chunks.push(statusBody(random, mode, request, id));
  }
  if (error !== 0) {
    const text = Buffer.from('words');
    chunks.push([Chunk.error, wire.concat(wire.numbers([4, error], [2, text.length]), text)]);
  }
  if (random.between(0, 1) === 0 || chunks.length === 0) chunks.push([Chunk.none, wire.numbers()]);
  return chunks.map(([type, body], i) =>
    chunk(mode, request, { type, body, done: i === chunks.length - 1 }),
  );
}

function readChunks(random: Random, { offset, length }: Asked): [number, Uint8Array][] {
  const cuts = [0, length];
  for (let count = random.between(0, 3); count > 0; count--) cuts.push(random.between(0, length));
  cuts.sort((a, b) => a - b);
  const pieces = cuts.slice(1).map((end, i) => [cuts[i], end - cuts[i]]);
  const whole = pieces.filter(([, size]) => size > 0);
  if (random.between(0, 1) === 0) whole.reverse();
  return whole.map(([start, size]) => {
    const at = wire.numbers([8, offset + start]);
    if (random.between(0, 3) > 0)
      return [Chunk.offsetData, wire.concat(at, contentAt(offset + start, size))];
    return [Chunk.offsetHole, wire.concat(at, wire.numbers([4, size]))];
  });
}

function statusBody(random: Random, mode: Mode, request: Asked, id: number): [number, Uint8Array] {
  const count = random.between(1, Math.min(5, request.length));
  const length = Math.floor(request.length / count);
  const width = mode === 'extended' ? 8 : 4;
  const extents = Array.from({ length: count }, () => [
    [width, length] as const,
    [width, random.between(0, 3)] as const,
  ]).flat();
  if (mode !== 'extended') return [Chunk.blockStatus, wire.numbers([4, id], ...extents)];
  return [Chunk.blockStatusExtended, wire.numbers([4, id], [4, count], ...extents)];
}

function chunk(
  mode: Mode,
  request: Asked,
  { type, body, done }: { type: number; body: Uint8Array; done: boolean },
): Uint8Array {
  if (mode !== 'extended') return wire.chunk(request, type, body, { done });
  const header = new Uint8Array(EXTENDED_CHUNK_BYTES);
  const { cookieHigh, cookieLow, offset } = request;
  const flags = done ? CHUNK_DONE : 0;
  const fields = { flags, type, cookieHigh, cookieLow, offset, length: body.length };
  writeExtendedChunkHeader(new DataView(header.buffer), 0, fields);
  return wire.concat(header, body);
}
