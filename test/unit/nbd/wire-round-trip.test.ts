/** What one side writes, the other one reads: every message, and whatever stands in its place. */
import { describe, expect, test } from 'vitest';
import { ExtentList } from '#dist/extent/index.js';
import * as wire from '#dist/nbd/wire/index.js';
import { viewOf } from '#dist/util/index.js';
import fc from '../../support/fast-check.js';
import {
  chunkAt,
  extendedChunkAt,
  extendedRequestAt,
  requestAt,
  simpleReplyAt,
} from '../../support/read-wire.js';

const u16 = fc.integer({ min: 0, max: 0xffff });
const u32 = fc.integer({ min: 0, max: 0xffffffff });
const u53 = fc.oneof(fc.maxSafeNat(), u32, fc.constantFrom(2 ** 31, 2 ** 32, 2 ** 53 - 1));
/** Names of every kind that can be sent, the empty one and those that begin with a byte order mark among them. */
const text = fc.string({ unit: 'grapheme', maxLength: 40 }).filter((name) => !name.includes('\0'));
const header = { flags: u16, cookieHigh: u32, cookieLow: u32 };

/** A message that is read as a whole, and its bytes. */
interface Message<T> {
  readonly values: fc.Arbitrary<T>;
  readonly encode: (value: T) => Uint8Array;
  readonly decode: (bytes: Uint8Array) => unknown;
  /** How much of it may be missing before it is another message: nothing, unless a text stands at its end. */
  readonly tail?: (value: T) => number;
}

function message<T>(one: Message<T>): Message<unknown> {
  return one as unknown as Message<unknown>;
}

/** A message of fixed length, as the function that writes it into a view makes it. */
function written<T>(length: number, write: (view: DataView, at: number, value: T) => void) {
  return (value: T) => {
    const bytes = new Uint8Array(length);
    write(viewOf(bytes), 0, value);
    return bytes;
  };
}

/** Only of exactly so many bytes: in a stream the reader waits for them. */
function fixed<T>(length: number, read: (view: DataView, at: number) => T) {
  return (bytes: Uint8Array) => (bytes.length < length ? undefined : read(viewOf(bytes), 0));
}

const bytesOf = (words: string) => Buffer.byteLength(words);

const sizes = fc.tuple(fc.nat({ max: 16 }), fc.nat({ max: 20 }), u32).map(([small, more, most]) => {
  const minimum = 2 ** small;
  const preferred = Math.max(512, minimum) * 2 ** (more % 10);
  return { minimum, preferred, maximum: Math.max(most, minimum) };
});

const MESSAGES: Readonly<Record<string, Message<unknown>>> = {
  'an option': message({
    values: fc.record({ option: u32, length: fc.nat({ max: 100 }) }),
    encode: ({ option, length }) => wire.encodeOption(option, new Uint8Array(length)),
    decode: (bytes) => (bytes.length < 16 ? undefined : wire.decodeOptionHeader(bytes)),
    tail: ({ length }) => length,
  }),
  'the question for infos': message({
    values: fc.record({ exportName: text, infos: fc.array(u16) }),
    encode: ({ exportName, infos }) => wire.encodeInfoQuery(exportName, infos),
    decode: wire.decodeInfoQuery,
  }),
  'the question for metadata contexts': message({
    values: fc.record({ exportName: text, queries: fc.array(text) }),
    encode: ({ exportName, queries }) => wire.encodeContextQuery(exportName, queries),
    decode: wire.decodeContextQuery,
  }),
  'a reply to an option': message({
    values: fc.record({ option: u32, type: u32, length: fc.nat({ max: 100 }) }),
    encode: ({ option, type, length }) =>
      wire.encodeOptionReply(option, type, new Uint8Array(length)),
    decode: (bytes) => (bytes.length < 20 ? undefined : wire.decodeOptionReplyHeader(bytes)),
    tail: ({ length }) => length,
  }),
  'a listed export': message({
    values: fc.record({ name: text, description: text }),
    encode: wire.encodeListed,
    decode: wire.decodeListed,
    tail: ({ description }) => bytesOf(description),
  }),
  'a metadata context': message({
    values: fc.record({ id: u32, name: text.filter((name) => name !== '') }),
    encode: wire.encodeMetaContext,
    decode: wire.decodeMetaContext,
    tail: ({ name }) => bytesOf(name) - 1,
  }),
  'size and flags of an export': message({
    values: fc.record({ size: u53, flags: u16 }),
    encode: wire.encodeExportInfo,
    decode: wire.decodeExportInfo,
  }),
  'block sizes': message({
    values: sizes,
    encode: wire.encodeBlockSizes,
    decode: wire.decodeBlockSizes,
  }),
  'the answer to the oldest way in': message({
    values: fc.record({ size: u53, flags: u16 }),
    encode: (info) => wire.encodeExportNameAnswer(info, false),
    decode: (bytes) => (bytes.length < 10 ? undefined : wire.decodeExportNameAnswer(bytes)),
  }),
  'a request': message({
    values: fc.record({ ...header, command: u16, offset: u53, length: u32 }),
    encode: written(wire.REQUEST_BYTES, wire.writeRequest),
    decode: fixed(wire.REQUEST_BYTES, requestAt),
  }),
  'an extended request': message({
    values: fc.record({ ...header, command: u16, offset: u53, length: u53 }),
    encode: written(wire.EXTENDED_REQUEST_BYTES, wire.writeExtendedRequest),
    decode: fixed(wire.EXTENDED_REQUEST_BYTES, extendedRequestAt),
  }),
  'a simple reply': message({
    values: fc.record({ cookieHigh: u32, cookieLow: u32, error: u32 }),
    encode: written(wire.SIMPLE_REPLY_BYTES, (view, at, reply) =>
      wire.writeSimpleReply(view, at, reply, reply.error),
    ),
    decode: fixed(wire.SIMPLE_REPLY_BYTES, simpleReplyAt),
  }),
  'the header of a chunk': message({
    values: fc.record({ ...header, type: u16, length: u32 }),
    encode: written(wire.CHUNK_BYTES, wire.writeChunkHeader),
    decode: fixed(wire.CHUNK_BYTES, chunkAt),
  }),
  'the extended header of a chunk': message({
    values: fc.record({ ...header, type: u16, offset: u53, length: u53 }),
    encode: written(wire.EXTENDED_CHUNK_BYTES, wire.writeExtendedChunkHeader),
    decode: fixed(wire.EXTENDED_CHUNK_BYTES, extendedChunkAt),
  }),
  'a hole': message({
    values: fc.record({ offset: u53, length: u32 }),
    encode: written(wire.HOLE_BYTES, (view, at, { offset, length }) =>
      wire.writeHole(view, at, offset, length),
    ),
    decode: fixed(wire.HOLE_BYTES, (view, at) => ({
      offset: wire.readHoleOffset(view, at),
      length: wire.readHoleLength(view, at),
    })),
  }),
  'an error': message({
    values: fc.record({ error: u32, text: fc.uint8Array({ maxLength: 40 }) }),
    encode: wire.encodeError,
    decode: wire.decodeError,
  }),
  'the payload of a block status request': message({
    values: fc.record({ effectLength: u53, contextIds: fc.array(u32, { maxLength: 5 }) }),
    encode: wire.encodeStatusPayload,
    decode: wire.decodeStatusPayload,
    tail: ({ contextIds }) => 4 * contextIds.length,
  }),
};

describe.each(Object.keys(MESSAGES))('%s', (name) => {
  const { values, encode, decode, tail = () => 0 } = MESSAGES[name];

  test('is read as it was written', () => {
    fc.assert(
      fc.property(values, (value) => {
        expect(decode(encode(value))).toEqual(value);
      }),
    );
  });

  test('is not read where its end is missing', () => {
    fc.assert(
      fc.property(values, fc.nat(), (value, cut) => {
        const bytes = encode(value);
        const needed = bytes.length - tail(value);
        expect(decode(bytes.subarray(0, cut % needed))).toBeUndefined();
      }),
    );
  });

  test('with any byte changed is refused or is another message of the same form', () => {
    const [example] = fc.sample(values, { numRuns: 1, seed: 7 });
    const bytes = encode(example);
    for (let at = 0; at < bytes.length; at++) {
      for (const value of [0, 1, 0x7f, 0x80, 0xfe, 0xff]) {
        const changed = Uint8Array.from(bytes);
        changed[at] = value;
        expectSound(changed);
      }
    }
  });

  test('made of noise is refused or is a message', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => expectSound(bytes)));
  });

  /** What is read says the same again when it is written: nothing of it was made up. */
  function expectSound(bytes: Uint8Array): void {
    const read = decode(bytes);
    if (read === undefined || !canBeWritten(read)) return;
    expect(decode(encode(read))).toEqual(read);
  }
});

/** Numbers above 2^53 - 1 are read rounded; text with a NUL is never sent; and nobody makes a payload of gigabytes. */
function canBeWritten(read: unknown): boolean {
  const { length = 0, option } = read as { length?: number; option?: number };
  if (option !== undefined && length > 4096) return false;
  return !/\\u0000|\d{16}/.test(JSON.stringify(read));
}

describe('a greeting', () => {
  test('tells an NBD server, its style and its flags', () => {
    const bytes = wire.encodeGreeting(3);
    const [first, second, flags] = [
      bytes.subarray(0, 8),
      bytes.subarray(8, 16),
      bytes.subarray(16),
    ];
    expect(wire.isNbdMagic(first)).toBe(true);
    expect(wire.decodeStyle(second)).toBe('newstyle');
    expect(wire.decodeHandshakeFlags(flags)).toBe(3);
    expect(wire.decodeClientFlags(wire.encodeClientFlags(0x80000003))).toBe(0x80000003);
  });

  test('with any bit of its magic numbers changed is not taken for a greeting', () => {
    const bytes = wire.encodeGreeting(3);
    for (let bit = 0; bit < 128; bit++) {
      const changed = Uint8Array.from(bytes);
      changed[bit >> 3] ^= 1 << (bit & 7);
      const isKnown =
        wire.isNbdMagic(changed.subarray(0, 8)) &&
        wire.decodeStyle(changed.subarray(8, 16)) === 'newstyle';
      expect(isKnown).toBe(false);
    }
  });

  test('of the oldstyle handshake is told apart', () => {
    const bytes = new Uint8Array(8);
    viewOf(bytes).setBigUint64(0, wire.OLDSTYLE_MAGIC);
    expect(wire.decodeStyle(bytes)).toBe('oldstyle');
  });
});

describe('infos of an export', () => {
  test.each([
    [wire.Info.name, 'disk'],
    [wire.Info.description, '\ufeffa disk'],
    [wire.Info.name, ''],
  ])('of type %i carry the text %j', (type, words) => {
    const payload = wire.encodeTextInfo(type, words);
    expect(wire.infoType(payload)).toBe(type);
    expect(wire.decodeTextInfo(payload)).toBe(words);
  });

  test('say their type, or are too short to', () => {
    expect(wire.infoType(wire.encodeExportInfo({ size: 1, flags: 1 }))).toBe(wire.Info.export);
    const { minimum, preferred, maximum } = { minimum: 1, preferred: 4096, maximum: 65536 };
    const sizes = wire.encodeBlockSizes({ minimum, preferred, maximum });
    expect(wire.infoType(sizes)).toBe(wire.Info.blockSize);
    expect(wire.infoType(new Uint8Array(1))).toBeUndefined();
  });

  test('are followed by zeroes where the oldest way in asks for them', () => {
    const bytes = wire.encodeExportNameAnswer({ size: 2 ** 40, flags: 3 }, true);
    expect(bytes.length).toBe(wire.EXPORT_NAME_BYTES + wire.EXPORT_NAME_ZEROES);
    expect(bytes.subarray(wire.EXPORT_NAME_BYTES).every((byte) => byte === 0)).toBe(true);
    expect(wire.decodeExportNameAnswer(bytes)).toEqual({ size: 2 ** 40, flags: 3 });
  });
});

describe('extents', () => {
  const extents = fc.array(fc.tuple(fc.integer({ min: 1, max: 2 ** 31 }), u32), {
    minLength: 1,
    maxLength: 20,
  });

  test('are read one number at a time as they were written', () => {
    fc.assert(
      fc.property(u32, extents, (id, pairs) => {
        const list = listOf(pairs);
        const view = viewOf(wire.encodeStatus(id, list));
        expect(wire.readContextId(view, 0)).toBe(id);
        expect(wire.extentCount(view.byteLength)).toBe(list.count);
        const read = eachOf(list, wire.STATUS_HEAD_BYTES, wire.EXTENT_BYTES).map((at) => [
          wire.readExtentLength(view, at),
          wire.readExtentFlags(view, at),
        ]);
        expect(read).toEqual(pairsOf(list));
      }),
    );
  });

  test('of 64 bits are read one number at a time as they were written', () => {
    fc.assert(
      fc.property(u32, extents, (id, pairs) => {
        const list = listOf(pairs.map(([length, flags]) => [length * 2 ** 16, flags]));
        const view = viewOf(wire.encodeExtendedStatus(id, list));
        expect(wire.readContextId(view, 0)).toBe(id);
        expect(wire.readExtentCount(view, 0)).toBe(list.count);
        expect(wire.extendedExtentCount(view.byteLength)).toBe(list.count);
        const head = wire.EXTENDED_STATUS_HEAD_BYTES;
        const read = eachOf(list, head, wire.EXTENDED_EXTENT_BYTES).map((at) => {
          const flags = wire.readExtendedExtentFlags(view, at);
          expect(wire.readExtendedExtentLowFlags(view, at)).toBe(flags);
          return [wire.readExtendedExtentLength(view, at), flags];
        });
        expect(read).toEqual(pairsOf(list));
      }),
    );
  });

  test('with flags above 32 bits keep the lower half exact', () => {
    const view = new DataView(new ArrayBuffer(16));
    view.setBigUint64(8, 0xffff_ffff_ffff_fffen);
    expect(wire.readExtendedExtentLowFlags(view, 0)).toBe(0xffff_fffe);
  });

  test.each([0, 1, 4, 11, 13, 19])('do not fit a chunk of %i bytes exactly', (length) => {
    expect(wire.extentCount(length)).toBeUndefined();
  });
});

test('an offset that no number holds exactly is said again as it came', () => {
  const view = new DataView(new ArrayBuffer(32));
  view.setBigUint64(16, 0xffff_ffff_0000_0001n);
  const exact = { offsetHigh: 0, offsetLow: 0 };
  wire.readExactOffset(view, 0, exact);
  const echo = new DataView(new ArrayBuffer(32));
  wire.writeExactOffset(echo, 0, exact);
  expect(echo.getBigUint64(16)).toBe(0xffff_ffff_0000_0001n);
});

test('the offset of data is read as it was written', () => {
  const view = new DataView(new ArrayBuffer(wire.DATA_HEAD_BYTES));
  wire.writeDataOffset(view, 0, 2 ** 52 + 1);
  expect(wire.readDataOffset(view, 0)).toBe(2 ** 52 + 1);
});

function listOf(pairs: readonly (readonly [length: number, flags: number])[]): ExtentList {
  const list = new ExtentList(0);
  for (const [length, flags] of pairs) list.push(length, flags);
  return list;
}

/** The extents of a list, which has joined those with the same flags. A list that grows so long is cut nowhere. */
function pairsOf(list: ExtentList): [number, number][] {
  return indexes(list).map((i) => [list.endAt(i) - list.startAt(i), list.flagsAt(i)]);
}

function eachOf(list: ExtentList, head: number, bytes: number): number[] {
  return indexes(list).map((i) => head + i * bytes);
}

function indexes(list: ExtentList): number[] {
  return Array.from({ length: list.count }, (_, i) => i);
}
