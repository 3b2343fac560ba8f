import { describe, expect, test } from 'vitest';
import { errnoName } from '#dist/nbd/wire/errno.js';
import { decodeBlockSizes } from '#dist/nbd/wire/infos.js';
import { encodeContextQuery, encodeInfoQuery, encodeOption } from '#dist/nbd/wire/options.js';
import { REQUEST_BYTES, writeRequest } from '#dist/nbd/wire/requests.js';
import { decodeText, encodeText, printable } from '#dist/nbd/wire/text.js';
import { readU64, writeU64 } from '#dist/util/index.js';
import fc from '../../support/fast-check.js';
import { numbers } from '../../support/hostile-nbd-wire.js';
import { requestAt } from '../../support/read-wire.js';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const u32 = fc.integer({ min: 0, max: 0xffffffff });
const u16 = fc.integer({ min: 0, max: 0xffff });
const offset = fc.oneof(fc.maxSafeNat(), u32, fc.constantFrom(2 ** 31, 2 ** 32, 2 ** 53 - 1));

describe('the wire', () => {
  test('a request is 28 big-endian bytes', () => {
    const view = new DataView(new ArrayBuffer(REQUEST_BYTES));
    const request = { flags: 1, command: 6, cookieHigh: 2, cookieLow: 3 };
    writeRequest(view, 0, { ...request, offset: 0x1_8000_0001, length: 0x80000000 });
    expect(hex(new Uint8Array(view.buffer))).toBe(
      '25609513' + '0001' + '0006' + '0000000200000003' + '0000000180000001' + '80000000',
    );
  });

  test('a request is read back as it was written', () => {
    const view = new DataView(new ArrayBuffer(REQUEST_BYTES + 3));
    const header = {
      flags: u16,
      command: u16,
      cookieHigh: u32,
      cookieLow: u32,
      offset,
      length: u32,
    };
    fc.assert(
      fc.property(fc.record(header), (request) => {
        writeRequest(view, 3, request);
        expect(requestAt(view, 3)).toEqual(request);
      }),
    );
    expect(requestAt(view, 0)).toBeUndefined();
  });

  test('a 64-bit number above 2^53 stays above every size', () => {
    const view = new DataView(new ArrayBuffer(8));
    fc.assert(
      fc.property(fc.bigInt({ min: 2n ** 53n, max: 2n ** 64n - 1n }), (value) => {
        view.setBigUint64(0, value);
        expect(readU64(view, 0)).toBeGreaterThan(Number.MAX_SAFE_INTEGER);
      }),
    );
    fc.assert(
      fc.property(offset, (value) => {
        writeU64(view, 0, value);
        expect(readU64(view, 0)).toBe(value);
        expect(view.getBigUint64(0)).toBe(BigInt(value));
      }),
    );
  });

  test('options have the layout of the protocol', () => {
    expect(hex(encodeOption(8))).toBe('49484156454f505400000008' + '00000000');
    expect(hex(encodeInfoQuery('ab', [3, 1]))).toBe('00000002' + '6162' + '0002' + '00030001');
    expect(hex(encodeContextQuery('ab', ['x:', 'y']))).toBe(
      '00000002' + '6162' + '00000002' + '00000002' + '783a' + '00000001' + '79',
    );
  });

  test.each([
    [1, 512, 512, true],
    [4096, 65536, 0xffffffff, true],
    [512, 4096, 33554431, true],
    [0, 4096, 65536, false],
    [3, 4096, 65536, false],
    [131072, 131072, 0xffffffff, false],
    [1, 256, 65536, false],
    [4096, 512, 65536, false],
    [1, 4097, 65536, false],
    [1, 4096, 512, true],
    [4096, 4096, 512, false],
  ])('block sizes %i, %i, %i are valid: %s', (minimum, preferred, maximum, valid) => {
    const bytes = numbers([2, 3], [4, minimum], [4, preferred], [4, maximum]);
    const sizes = decodeBlockSizes(bytes);
    expect(sizes).toEqual(valid ? { minimum, preferred, maximum } : undefined);
  });

  test('a name comes back as it was sent, whatever it begins with', () => {
    for (const name of ['\ufeffdisk', '\ufeff', 'a\ufeffb', 'ü/\u{1f4be}', '']) {
      expect(decodeText(encodeText(name, 'the name'))).toBe(name);
    }
  });

  test('names that cannot be sent are misuse, and texts cannot fool a terminal', () => {
    expect(() => encodeText('a'.repeat(4097), 'the name')).toThrow(TypeError);
    expect(() => encodeText('a\0b', 'the name')).toThrow(TypeError);
    expect(printable('bad\u001b[2J\r\nnews ')).toBe('bad [2J news');
    expect([errnoName(28), errnoName(31337)]).toEqual(['ENOSPC', 'EINVAL']);
  });
});
