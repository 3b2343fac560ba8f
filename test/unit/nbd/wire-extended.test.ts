import { describe, expect, test } from 'vitest';
import { EXTENDED_CHUNK_BYTES, writeExtendedChunkHeader } from '#dist/nbd/wire/replies.js';
import { EXTENDED_REQUEST_BYTES, writeExtendedRequest } from '#dist/nbd/wire/requests.js';
import {
  decodeStatusPayload,
  encodeStatusPayload,
  extendedExtentCount,
} from '#dist/nbd/wire/status.js';
import fc from '../../support/fast-check.js';
import { extendedChunkAt, extendedRequestAt } from '../../support/read-wire.js';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const u32 = fc.integer({ min: 0, max: 0xffffffff });
const u16 = fc.integer({ min: 0, max: 0xffff });
const u53 = fc.oneof(fc.maxSafeNat(), u32, fc.constantFrom(2 ** 31, 2 ** 32, 2 ** 53 - 1));
const message = { flags: u16, cookieHigh: u32, cookieLow: u32, offset: u53, length: u53 };

describe('extended headers', () => {
  test('a request is 32 big-endian bytes', () => {
    const view = new DataView(new ArrayBuffer(EXTENDED_REQUEST_BYTES));
    const request = { flags: 0x20, command: 7, cookieHigh: 2, cookieLow: 3 };
    writeExtendedRequest(view, 0, { ...request, offset: 0x1_8000_0001, length: 0x2_8000_0000 });
    expect(hex(new Uint8Array(view.buffer))).toBe(
      '21e41c71' + '0020' + '0007' + '0000000200000003' + '0000000180000001' + '0000000280000000',
    );
  });

  test('a request is read back as it was written', () => {
    const view = new DataView(new ArrayBuffer(EXTENDED_REQUEST_BYTES + 3));
    fc.assert(
      fc.property(fc.record({ ...message, command: u16 }), (request) => {
        writeExtendedRequest(view, 3, request);
        expect(extendedRequestAt(view, 3)).toEqual(request);
      }),
    );
  });

  test('a chunk is 32 big-endian bytes, with the offset of its request', () => {
    const view = new DataView(new ArrayBuffer(EXTENDED_CHUNK_BYTES));
    const chunk = { flags: 1, type: 6, cookieHigh: 2, cookieLow: 3 };
    writeExtendedChunkHeader(view, 0, { ...chunk, offset: 0x1_8000_0001, length: 24 });
    expect(hex(new Uint8Array(view.buffer))).toBe(
      '6e8a278c' + '0001' + '0006' + '0000000200000003' + '0000000180000001' + '0000000000000018',
    );
  });

  test('a chunk is read back as it was written', () => {
    const view = new DataView(new ArrayBuffer(EXTENDED_CHUNK_BYTES + 3));
    fc.assert(
      fc.property(fc.record({ ...message, type: u16 }), (chunk) => {
        writeExtendedChunkHeader(view, 3, chunk);
        expect(extendedChunkAt(view, 3)).toEqual(chunk);
      }),
    );
  });

  test('what has the magic number of the compact form is not read', () => {
    const view = new DataView(new ArrayBuffer(EXTENDED_CHUNK_BYTES));
    view.setUint32(0, 0x25609513);
    expect(extendedRequestAt(view, 0)).toBeUndefined();
    view.setUint32(0, 0x668e33ef);
    expect(extendedChunkAt(view, 0)).toBeUndefined();
  });
});

describe('block status', () => {
  test('a payload is a 64-bit length and 32-bit ids', () => {
    const bytes = encodeStatusPayload({ effectLength: 0x1_0000_0002, contextIds: [0x80000001, 3] });
    expect(hex(bytes)).toBe('0000000100000002' + '80000001' + '00000003');
    expect(decodeStatusPayload(bytes)).toEqual({
      effectLength: 0x1_0000_0002,
      contextIds: [0x80000001, 3],
    });
  });

  test.each([0, 7, 9, 10, 11, 13])('a payload of %i bytes is refused', (length) => {
    expect(decodeStatusPayload(new Uint8Array(length))).toBeUndefined();
  });

  test.each([8, 23, 25])('no extents fit an extended chunk of %i bytes exactly', (length) => {
    expect(extendedExtentCount(length)).toBeUndefined();
  });

  test.each([
    [1, 24],
    [2, 40],
  ])('%i extents fit an extended chunk of %i bytes exactly', (count, length) => {
    expect(extendedExtentCount(length)).toBe(count);
  });
});
