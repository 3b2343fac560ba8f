import { LacunaError } from 'lacuna/errors';
import { describe, expect, test } from 'vitest';
import { type JsonObject, JsonStream, parseJson } from '#dist/qmp/wire/index.js';
import fc from '../../support/fast-check.js';

/** Objects of every shape that a cut could fall into. */
const OBJECTS = [
  {},
  { return: {} },
  { a: '{"}\\"[' },
  { a: 'ä€😀\u0000', b: [[], [{}], -1.5e3, true, null] },
  { 'key with "quotes"\\': { deep: [{ deep: [{}] }] } },
];
const TEXT = Buffer.from(
  `${JSON.stringify(OBJECTS[0])}\r\n${OBJECTS.slice(1)
    .map((one) => JSON.stringify(one, null, 4))
    .join('')}\n`,
);

function read(pieces: Iterable<Uint8Array>, limits = {}): JsonObject[] {
  const found: JsonObject[] = [];
  const stream = new JsonStream({ object: (value) => found.push(value) }, limits);
  for (const piece of pieces) stream.push(piece);
  return found;
}

function failureOf(text: string | Uint8Array, limits = {}): LacunaError {
  try {
    read([Buffer.from(text as string)], limits);
  } catch (error) {
    return error as LacunaError;
  }
  throw new Error('it was taken');
}

describe('a stream of JSON', () => {
  test('is read as the objects in it, wherever it is cut', () => {
    for (let at = 0; at <= TEXT.length; at++) {
      expect(read([TEXT.subarray(0, at), TEXT.subarray(at)]), `cut at ${at}`).toEqual(OBJECTS);
    }
  });

  test('is read when it comes byte by byte in memory that is used again', () => {
    const one = new Uint8Array(1);
    const pieces = (function* () {
      for (const byte of TEXT) {
        one[0] = byte;
        yield one;
      }
    })();
    expect(read(pieces)).toEqual(OBJECTS);
  });

  test.each([
    ['a text outside an object', '"a"', /byte 0x22/],
    ['a list', '[1]', /byte 0x5b/],
    ['words', 'SSH-2.0', /byte 0x53/],
    ['brackets that do not fit', '{"a":[}]', /not JSON/],
    ['a comma too many', '{"a":1,}', /not JSON/],
    ['bytes that are not UTF-8', Buffer.from([0x7b, 0x22, 0xc3, 0x22, 0x3a, 0x31, 0x7d]), /UTF-8/],
    ['byte 0xff', Buffer.from([0x7b, 0xff]), /0xff/],
  ])('is refused with %s', (_, text, message) => {
    const failure = failureOf(text);
    expect(failure).toMatchObject({ code: 'ERR_QMP_PROTOCOL' });
    expect(failure.message).toMatch(message);
  });

  test('is refused when an object is too long, whether or not it ends', () => {
    const limits = { maximumBytes: 100 };
    const text = `{"a":"${'x'.repeat(92)}"}`;
    expect(read([Buffer.from(text)], limits)).toHaveLength(1);
    expect(failureOf(`${text.slice(0, -2)}xx"}`, limits).message).toMatch(/more than 100 bytes/);
    expect(failureOf(`${text.slice(0, -2)}xxx`, limits).message).toMatch(/more than 100 bytes/);
  });

  test('is refused when it is nested too deep', () => {
    const nested = (depth: number) => `{"a":${'['.repeat(depth)}${']'.repeat(depth)}}`;
    expect(read([Buffer.from(nested(255))])).toHaveLength(1);
    expect(failureOf(nested(256)).message).toMatch(/more than 256 levels/);
  });

  test('drops what a delimiter interrupts, where there is one', () => {
    const found: unknown[] = [];
    const stream = new JsonStream({
      object: (value) => found.push(value),
      delimiter: () => found.push('delimiter'),
    });
    stream.push(Buffer.from([0x7b, 0x22, 0x7b, 0xff, 0xff]));
    stream.push(Buffer.from('{"return":1}'));
    expect(found).toEqual(['delimiter', 'delimiter', { return: 1 }]);
  });

  test('never fails with anything but a refusal, whatever bytes come', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 8 }), fc.nat(TEXT.length), (bytes, at) => {
        const damaged = Buffer.concat([TEXT.subarray(0, at), bytes, TEXT.subarray(at)]);
        try {
          read([damaged.subarray(0, at + 3), damaged.subarray(at + 3)]);
        } catch (error) {
          expect(error).toBeInstanceOf(LacunaError);
        }
      }),
    );
  });
});

describe('the JSON of commands', () => {
  test('is read as JSON.parse reads it', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.nat(4), (value, indent) => {
        const text = JSON.stringify(value, null, indent);
        expect(parseJson(text)).toEqual(JSON.parse(text));
      }),
    );
  });

  test('is refused wherever JSON.parse refuses it', () => {
    const marks = fc.constantFrom(
      '{',
      '}',
      '[',
      ']',
      ',',
      ':',
      '"',
      '"a"',
      '1',
      '-',
      '01',
      '1e3',
      'nul',
      'null',
      ' ',
      '\\',
    );
    fc.assert(
      fc.property(fc.array(marks, { maxLength: 8 }), (parts) => {
        const text = parts.join('');
        let wanted: unknown;
        try {
          wanted = JSON.parse(text);
        } catch {
          expect(() => parseJson(text), text).toThrow(SyntaxError);
          return;
        }
        const names = text.match(/"a"\s*:/g) ?? [];
        if (names.length < 2) expect(parseJson(text), text).toEqual(wanted);
      }),
    );
  });

  test('may have a text of many megabytes, and names that mean something to JavaScript', () => {
    const text = 'a"\\\n'.repeat(2_000_000);
    expect(parseJson(JSON.stringify({ text }))).toEqual({ text });
    const object = parseJson('{"__proto__":{"a":1}}') as object;
    expect(Object.getPrototypeOf(object)).toBe(Object.prototype);
    expect(Object.keys(object)).toEqual(['__proto__']);
  });

  test('is refused where a name is there twice', () => {
    expect(() => parseJson('{"a":1,"b":{"a":1},"\\u0061":2}')).toThrow('duplicate key');
  });
});
