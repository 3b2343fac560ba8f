import { LacunaError } from 'lacuna/errors';
import { describe, expect, test } from 'vitest';
import { type Agreement, handshake } from '#dist/nbd/client/handshake/handshake.js';
import { listExports } from '#dist/nbd/client/handshake/list.js';
import { Option, OptionError } from '#dist/nbd/wire/constants.js';
import { encodeOptionReply } from '#dist/nbd/wire/option-replies.js';
import * as wire from '../../support/hostile-nbd-wire.js';
import { talk } from './conversation-harness.js';
import { feed } from './feed.js';

const SIZE = 3 * 2 ** 30;
const NO = (option: number) => wire.optionError(option, OptionError.unsupported);

const meet = (bytes: Uint8Array, contexts: string[] = [], sizes?: readonly number[]) =>
  talk<Agreement>(handshake({ export: 'disk', contexts, extended: false }), bytes, sizes);

const GO_REPLIES = wire.concat(
  wire.goInfo(wire.numbers([2, 77], [4, 1])),
  wire.blockSizeInfo(512, 65536, 2 ** 25),
  wire.exportInfo(SIZE, 0x8ed),
  wire.ack(Option.go),
);
const FULL = wire.concat(
  wire.greeting(),
  wire.ack(Option.structuredReply),
  wire.grantContext(7, 'base:allocation'),
  wire.grantContext(0x80000001, 'x:y'),
  wire.ack(Option.setMetaContext),
  GO_REPLIES,
);
const AGREEMENT: Agreement = {
  size: SIZE,
  flags: 0x8ed,
  structured: true,
  extended: false,
  contexts: [
    { id: 7, name: 'base:allocation' },
    { id: 0x80000001, name: 'x:y' },
  ],
  blockSizes: { minimum: 512, preferred: 65536, maximum: 2 ** 25 },
  blockSizesTold: true,
};

describe('the handshake', () => {
  test.each([
    ['at once', [Number.POSITIVE_INFINITY]],
    ['byte by byte', [1]],
    ['in odd pieces', [3, 1, 7, 2, 19]],
  ])('comes to the same agreement %s', (_, sizes) => {
    const { result, error, sent } = meet(FULL, ['x:y'], sizes);
    expect(error).toBeUndefined();
    expect(result).toEqual(AGREEMENT);
    expect(sent[0]).toEqual(wire.numbers([4, 3]));
    const asked = sent.slice(1).map((bytes) => new DataView(bytes.buffer).getUint32(8));
    expect(asked).toEqual([Option.structuredReply, Option.setMetaContext, Option.go]);
  });

  test('takes not a byte more than its own', () => {
    const { result, dialogue } = meet(FULL.subarray(0, FULL.length - 1), ['x:y']);
    expect(result).toBeUndefined();
    expect(dialogue.buffer().length).toBe(1);
  });

  test('echoes only flags that were offered', () => {
    const bytes = (flags: number) => meet(wire.greeting(flags)).sent[0];
    expect(bytes(0xffff)).toEqual(wire.numbers([4, 3]));
    expect(bytes(1)).toEqual(wire.numbers([4, 1]));
    expect(bytes(0)).toEqual(wire.numbers([4, 0]));
  });

  test('without structured replies asks for no contexts', () => {
    const { result } = meet(
      wire.concat(
        wire.greeting(),
        NO(Option.structuredReply),
        wire.exportInfo(1000, 1),
        wire.ack(7),
      ),
    );
    expect(result).toMatchObject({ structured: false, contexts: [], size: 1000 });
    expect(result?.blockSizes.minimum).toBe(1);
  });

  test.each([
    ['with', 1, 124],
    ['without', 3, 0],
  ])('falls back to EXPORT_NAME %s its zeroes', (_, flags, zeroes) => {
    const { result, error } = meet(
      wire.concat(
        ...[wire.greeting(flags), NO(Option.structuredReply), NO(Option.go)],
        ...[wire.numbers([8, SIZE], [2, 5]), new Uint8Array(zeroes)],
      ),
    );
    expect(error).toBeUndefined();
    expect(result).toMatchObject({ size: SIZE, flags: 5 });
    expect(result?.blockSizes).toEqual({ minimum: 512, preferred: 4096, maximum: 2 ** 25 });
  });

  test('flags of an export that does not say that it has some mean nothing', () => {
    const bytes = (flags: number) =>
      wire.concat(
        ...[wire.greeting(), NO(Option.structuredReply)],
        ...[wire.exportInfo(1000, flags), wire.ack(Option.go)],
      );
    expect(meet(bytes(0xffe)).result).toMatchObject({ flags: 0 });
    expect(meet(bytes(0xfff)).result).toMatchObject({ flags: 0xfff });
  });

  test('a hang-up instead of EXPORT_NAME means that the export is not there', () => {
    const outcome = meet(wire.greeting(0));
    outcome.dialogue.closed(new LacunaError('ERR_NBD_DISCONNECTED', 'gone'));
    expect(outcome.error).toMatchObject({ code: 'ERR_DEVICE_OPEN' });
  });

  test.each(['ERR_ABORTED', 'ERR_TIMEOUT'] as const)(
    'waiting for EXPORT_NAME ends with %s where that is the reason',
    (code) => {
      const outcome = meet(wire.greeting(0));
      outcome.dialogue.closed(new LacunaError(code, 'enough'));
      expect(outcome.error).toMatchObject({ code });
    },
  );

  test.each([
    ['unknown', OptionError.unknown, 'ERR_DEVICE_OPEN', 'no such export'],
    ['policy', OptionError.policy, 'ERR_DEVICE_OPEN', 'policy'],
    ['TLS required', OptionError.tlsRequired, 'ERR_NBD_TLS', 'nbds://'],
    ['shutdown', OptionError.shutdown, 'ERR_NBD_DISCONNECTED', 'shutting down'],
    ['an unknown error', 0x8000abcd, 'ERR_DEVICE_OPEN', '0x8000abcd'],
  ])('GO that is refused with "%s" fails', (_name, type, code, words) => {
    const refused = wire.optionError(Option.go, type, 'the\nreason');
    const { error } = meet(
      wire.concat(wire.greeting(), NO(Option.structuredReply), refused, NO(Option.list)),
    );
    expect(error).toMatchObject({ code, message: expect.stringContaining(words) });
    expect(error?.message).toContain('("the reason")');
  });

  test('an export that is missing is told together with those that there are', () => {
    const names = Array.from({ length: 25 }, (_, i) => `disk${i}`);
    const listed = names.map((name) =>
      encodeOptionReply(
        Option.list,
        2,
        wire.concat(wire.numbers([4, name.length]), Buffer.from(name)),
      ),
    );
    const refused = wire.optionError(Option.go, OptionError.unknown);
    const until = wire.concat(wire.greeting(), NO(Option.structuredReply), refused);
    const { error } = meet(wire.concat(until, ...listed, wire.ack(Option.list)));
    expect(error?.message).toMatch(
      /it has no such export; it has: "disk0", .*"disk19" and 5 more$/,
    );
  });

  test('a context that is missing is told by name, also where SET_META_CONTEXT fails', () => {
    const until = wire.concat(wire.greeting(), wire.ack(Option.structuredReply));
    for (const answer of [NO(Option.setMetaContext), wire.ack(Option.setMetaContext)]) {
      const there = wire.concat(
        encodeOptionReply(Option.listMetaContext, 4, Buffer.from('\0\0\0\x01a:b')),
        wire.ack(Option.listMetaContext),
      );
      const { error } = meet(wire.concat(until, answer, there, GO_REPLIES), ['x:y']);
      expect(error).toMatchObject({ code: 'ERR_CONTEXT_UNKNOWN' });
      expect(error?.message).toContain('"x:y"');
      expect(error?.message).toContain('"disk"');
      expect(error?.message).toContain('it has: "a:b"');
    }
  });

  test('a maximum below the preferred size is for exports that are smaller still', () => {
    const met = (size: number) =>
      meet(
        wire.concat(
          ...[wire.greeting(), NO(Option.structuredReply), wire.blockSizeInfo(1, 4096, 1024)],
          ...[wire.exportInfo(size, 1), wire.ack(Option.go)],
        ),
      );
    const blockSizes = { minimum: 1, preferred: 4096, maximum: 1024 };
    expect(met(1024).result).toMatchObject({ size: 1024, blockSizes });
    expect(met(1025).error).toMatchObject({ code: 'ERR_NBD_PROTOCOL' });
  });

  test('an export that is too large is refused', () => {
    const until = wire.concat(wire.greeting(), NO(Option.structuredReply));
    const { error } = meet(wire.concat(until, wire.exportInfo(2n ** 53n, 1), wire.ack(Option.go)));
    expect(error).toMatchObject({ code: 'ERR_NBD_UNSUPPORTED' });
  });
});

describe('a broken handshake is a protocol error', () => {
  const structured = wire.concat(wire.greeting(), wire.ack(Option.structuredReply));
  const plain = wire.concat(wire.greeting(), NO(Option.structuredReply));
  test.each<[string, Uint8Array]>([
    ['no magic', Buffer.from('HTTP/1.1 400 Bad Request')],
    [
      'an unknown second magic',
      wire.concat(wire.greeting().slice(0, 8), Buffer.from('x'.repeat(8))),
    ],
    ['a reply without magic', wire.concat(wire.greeting(), new Uint8Array(20))],
    ['a reply to another option', wire.concat(wire.greeting(), wire.ack(Option.go))],
    [
      'a reply of 4 GiB',
      wire.concat(wire.greeting(), wire.ack(8).slice(0, 16), wire.numbers([4, 0xffffffff])),
    ],
    ['a strange type', wire.concat(wire.greeting(), encodeOptionReply(8, 4, new Uint8Array(0)))],
    [
      'a context reply that is too short',
      wire.concat(structured, encodeOptionReply(10, 4, new Uint8Array(4))),
    ],
    [
      'a context granted twice',
      wire.concat(
        structured,
        wire.grantContext(1, 'a'),
        wire.grantContext(1, 'b'),
        wire.ack(Option.setMetaContext),
      ),
    ],
    ['GO acknowledged without the export', wire.concat(plain, wire.ack(Option.go))],
    [
      'an export info that is too short',
      wire.concat(plain, wire.goInfo(wire.numbers([2, 0], [8, 1]))),
    ],
    ['impossible block sizes', wire.concat(plain, wire.blockSizeInfo(3, 4, 5))],
    ['an info without a type', wire.concat(plain, wire.goInfo(new Uint8Array(1)))],
    [
      'infos without end',
      wire.concat(plain, ...Array<Uint8Array>(1100).fill(wire.goInfo(wire.numbers([2, 99])))),
    ],
    [
      'contexts without end',
      wire.concat(
        structured,
        ...Array.from({ length: 1100 }, (_, i) => wire.grantContext(i, `c${i}`)),
      ),
    ],
  ])('%s', (_, bytes) => {
    for (const sizes of [undefined, [1]]) {
      expect(meet(bytes, [], sizes).error).toMatchObject({ code: 'ERR_NBD_PROTOCOL' });
    }
  });
});

test('a list of exports is not read for ever', () => {
  const name = Buffer.alloc(16_000, 'x');
  const entry = encodeOptionReply(
    Option.list,
    2,
    wire.concat(wire.numbers([4, name.length]), name),
  );
  const outcome = talk(listExports(), wire.greeting());
  let bytes = 0;
  for (; outcome.error === undefined && bytes < 2 ** 30; bytes += entry.length) {
    feed(outcome.dialogue, entry.subarray(0, 20));
    if (outcome.error === undefined) feed(outcome.dialogue, entry.subarray(20));
  }
  expect(outcome.error).toMatchObject({ code: 'ERR_NBD_PROTOCOL' });
  expect(bytes).toBeLessThan(40 * 2 ** 20);
});

test('the list of exports is read to its end, byte by byte', () => {
  const entry = (name: string, words: string) =>
    encodeOptionReply(
      Option.list,
      2,
      wire.concat(wire.numbers([4, name.length]), Buffer.from(name + words)),
    );
  const bytes = wire.concat(
    wire.greeting(),
    entry('a', ''),
    entry('b', 'c'),
    wire.ack(Option.list),
  );
  const { result, sent } = talk(listExports(), bytes, [1]);
  expect(result).toEqual([
    { name: 'a', description: '' },
    { name: 'b', description: 'c' },
  ]);
  expect(new DataView(sent[2].buffer).getUint32(8)).toBe(Option.abort);
  const broken = encodeOptionReply(Option.list, 2, wire.numbers([4, 9], [1, 65]));
  const { error } = talk(listExports(), wire.concat(wire.greeting(), broken));
  expect(error).toMatchObject({ code: 'ERR_NBD_PROTOCOL' });
});
