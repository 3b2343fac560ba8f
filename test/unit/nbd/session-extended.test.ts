import { describe, expect, test } from 'vitest';
import type { RequestSpec } from '#dist/nbd/client/session/pending-request.js';
import type { SessionOptions } from '#dist/nbd/client/session/session.js';
import { CHUNK_DONE, Chunk, Command, CommandFlag } from '#dist/nbd/wire/constants.js';
import {
  type Cookie,
  EXTENDED_CHUNK_BYTES,
  writeExtendedChunkHeader,
} from '#dist/nbd/wire/replies.js';
import { EXTENDED_REQUEST_BYTES, type RequestHeader } from '#dist/nbd/wire/requests.js';
import { encodeStatusPayload } from '#dist/nbd/wire/status.js';
import * as wire from '../../support/hostile-nbd-wire.js';
import { extendedRequestAt } from '../../support/read-wire.js';
import { ALLOCATION, DIRTY, Harness } from './session-harness.js';

const TIB = 2 ** 40;
const SPLITS = [[1], [2 ** 30], [7, 1, 30]];
const pairs = (list: Iterable<{ length: number; flags: number }> | undefined) =>
  [...(list ?? [])].map(({ length, flags }) => [length, flags]);

/** A session with extended headers, and the header that it sent for a request. */
async function submit(spec: Partial<RequestSpec>, options: Partial<SessionOptions> = {}) {
  const harness = new Harness({ extended: true, size: 4 * TIB, ...options });
  const request = { command: Command.read, flags: 0, offset: 0, length: 512, ...spec };
  const promise = harness.session.submit(request);
  promise.catch(() => {});
  await new Promise((resolve) => setImmediate(resolve));
  const view = new DataView(harness.written[0].buffer);
  const header = extendedRequestAt(view, 0) as RequestHeader;
  return { harness, promise, header };
}

interface Reply extends Cookie {
  readonly offset: number;
}

function chunk(to: Reply, type: number, body: Uint8Array, claims: object = {}): Uint8Array {
  const header = new Uint8Array(EXTENDED_CHUNK_BYTES);
  const { cookieHigh, cookieLow, offset } = to;
  writeExtendedChunkHeader(new DataView(header.buffer), 0, {
    ...{ flags: CHUNK_DONE, type, cookieHigh, cookieLow, offset, length: body.length },
    ...claims,
  });
  return wire.concat(header, body);
}

const data = (to: Reply, at: number, bytes: Uint8Array, claims?: object) =>
  chunk(to, Chunk.offsetData, wire.concat(wire.numbers([8, at]), bytes), claims);

function extents(id: number, list: readonly (readonly [number | bigint, number | bigint])[]) {
  const fields = list.flatMap(([length, flags]) => [[8, length] as const, [8, flags] as const]);
  return wire.numbers([4, id], [4, list.length], ...fields);
}

const status = (to: Reply, body: Uint8Array, claims?: object) =>
  chunk(to, Chunk.blockStatusExtended, body, claims);
const ASKED = { command: Command.blockStatus, length: 2 * TIB, contexts: [ALLOCATION, DIRTY] };

describe('with extended headers', () => {
  test.each(SPLITS)('a read is put together, in pieces of %i bytes', async (...sizes) => {
    const target = new Uint8Array(100).fill(0xee);
    const { harness, promise, header } = await submit({ offset: TIB, length: 100, target });
    expect(header).toMatchObject({ offset: TIB, length: 100, flags: 0 });
    harness.deliver(
      wire.concat(
        data(header, TIB + 10, new Uint8Array(90).fill(7), { flags: 0 }),
        chunk(header, Chunk.offsetHole, wire.numbers([8, TIB], [4, 10]), { flags: 0 }),
        chunk(header, Chunk.none, new Uint8Array(0)),
      ),
      sizes,
    );
    await promise;
    expect([target[0], target[9], target[10], target[99]]).toEqual([0, 0, 7, 7]);
  });

  test('a large read is received straight into its target', async () => {
    const target = new Uint8Array(65536);
    const { harness, promise, header } = await submit({ length: 65536, target });
    const reply = data(header, 0, new Uint8Array(65536).fill(3));
    expect(harness.session.buffer().length).toBe(40);
    harness.deliver(reply.subarray(0, 40));
    expect(harness.session.buffer()).toBe(target);
    harness.deliver(reply.subarray(40));
    await promise;
    expect(target.every((byte) => byte === 3)).toBe(true);
  });

  test('a request without payload has a length of 64 bits', async () => {
    const spec = { command: Command.writeZeroes, offset: 512, length: 3 * TIB + 7 };
    const { harness, promise, header } = await submit(spec);
    expect(header).toMatchObject({ offset: 512, length: 3 * TIB + 7 });
    harness.deliver(chunk(header, Chunk.none, new Uint8Array(0)));
    await promise;
  });

  test.each(SPLITS)('status comes with 64 bits, in pieces of %i bytes', async (...sizes) => {
    const { harness, promise, header } = await submit(ASKED);
    const high = 2n ** 63n;
    harness.deliver(
      wire.concat(
        status(header, extents(DIRTY, [[TIB, 2 ** 40]]), { flags: 0 }),
        status(
          header,
          extents(ALLOCATION, [
            [TIB, 3],
            [512, high + 1n],
            [9 * TIB, 0],
          ]),
        ),
      ),
      sizes,
    );
    const lists = await promise;
    expect(pairs(lists.get(DIRTY))).toEqual([[TIB, 2 ** 40]]);
    expect(pairs(lists.get(ALLOCATION))).toEqual([
      [TIB, 6],
      [512, 4],
      [3 * TIB - 512, 1],
    ]);
  });

  test('the contexts of one request stand in a payload', async () => {
    const payload = encodeStatusPayload({ effectLength: 2 * TIB, contextIds: [DIRTY] });
    const spec = { ...ASKED, contexts: [DIRTY], statusPayload: payload };
    const { harness, promise, header } = await submit(spec);
    expect(header).toMatchObject({ length: payload.length, flags: CommandFlag.payloadLength });
    const sent = wire.concat(...harness.written);
    expect(sent.subarray(EXTENDED_REQUEST_BYTES)).toEqual(payload);
    harness.deliver(status(header, extents(DIRTY, [[2 * TIB, 1]])));
    expect(pairs((await promise).get(DIRTY))).toEqual([[2 * TIB, 1]]);
  });

  test('hundreds of requests in one turn fill their blocks without a gap', async () => {
    const harness = new Harness({ extended: true, size: TIB });
    const work = Array.from({ length: 700 }, (_, i) =>
      harness.session.submit({ command: Command.trim, flags: 0, offset: i, length: 1 }),
    );
    await new Promise((resolve) => setImmediate(resolve));
    const sent = wire.concat(...harness.written);
    expect(sent.length).toBe(700 * EXTENDED_REQUEST_BYTES);
    const view = new DataView(sent.buffer);
    for (const [i, promise] of work.entries()) {
      const header = extendedRequestAt(view, i * EXTENDED_REQUEST_BYTES) as RequestHeader;
      expect(header.offset).toBe(i);
      harness.deliver(chunk(header, Chunk.none, new Uint8Array(0)));
      await promise;
    }
  });

  test('an error is told, and the connection lives on', async () => {
    const { harness, promise, header } = await submit({ target: new Uint8Array(512) });
    const body = wire.concat(wire.numbers([4, 5], [2, 3]), Buffer.from('bad'));
    harness.deliver(chunk(header, Chunk.error, body));
    await expect(promise).rejects.toMatchObject({ code: 'ERR_NBD_REMOTE', errno: 'EIO' });
    expect(harness.failures).toEqual([]);
  });

  test.each<[string, (to: Reply & RequestHeader) => Uint8Array]>([
    ['a simple reply', (to) => wire.concat(wire.simpleReply(to), new Uint8Array(16))],
    ['a compact chunk', (to) => wire.concat(wire.doneChunk(to), new Uint8Array(12))],
    ['another offset', (to) => chunk({ ...to, offset: 1 }, Chunk.none, new Uint8Array(0))],
    ['compact status', (to) => chunk(to, Chunk.blockStatus, wire.numbers([4, 5], [4, 1], [4, 0]))],
    ['a count that does not fit', (to) => status(to, wire.numbers([4, 5], [4, 2], [8, 1], [8, 0]))],
    ['no extents', (to) => status(to, wire.numbers([4, ALLOCATION], [4, 0]))],
    ['half an extent', (to) => status(to, wire.numbers([4, ALLOCATION], [4, 1], [8, 1]))],
    ['an empty extent', (to) => status(to, extents(ALLOCATION, [[0, 0]]))],
    ['a body of 2^63 bytes', (to) => status(to, new Uint8Array(0), { length: 2 ** 62 })],
    ['an unknown type', (to) => chunk(to, 77, new Uint8Array(0))],
    [
      'more than was asked',
      (to) =>
        status(
          to,
          extents(ALLOCATION, [
            [2 * TIB, 0],
            [1, 1],
          ]),
        ),
    ],
  ])('%s breaks the protocol', async (_, answer) => {
    for (const sizes of SPLITS) {
      const { harness, promise, header } = await submit(ASKED);
      harness.deliver(answer(header), sizes);
      await expect(promise).rejects.toMatchObject({ code: 'ERR_NBD_PROTOCOL' });
    }
  });

  test('wide status is a violation where they were not agreed on', async () => {
    const harness = new Harness();
    const { promise, cookie } = await harness.status(0, 512);
    harness.deliver(wire.chunk(cookie, Chunk.blockStatusExtended, extents(ALLOCATION, [[512, 0]])));
    await expect(promise).rejects.toMatchObject({ code: 'ERR_NBD_PROTOCOL' });
  });
});
