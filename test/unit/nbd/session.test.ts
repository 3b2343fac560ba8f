import { describe, expect, test } from 'vitest';
import { Status } from '#dist/extent/index.js';
import type { Cookie } from '#dist/nbd/wire/replies.js';
import fc from '../../support/fast-check.js';
import * as wire from '../../support/hostile-nbd-wire.js';
import { ALLOCATION, DIRTY, Harness, SIZE } from './session-harness.js';

const sequence = (length: number, from = 0) =>
  new Uint8Array(length).map((_, i) => (from + i) % 251);
const SPLITS = [[1], [2 ** 30], [7, 1, 30]];
const flagsOf = (list: Iterable<{ length: number; flags: number }>) =>
  [...list].map(({ length, flags }) => [length, flags]);

describe('a read', () => {
  test.each(SPLITS)(
    'is put together from data and holes in any order, in pieces of %i bytes',
    async (...sizes) => {
      const harness = new Harness();
      const target = new Uint8Array(100).fill(0xee);
      const { promise, cookie } = await harness.read(1000, target);
      harness.deliver(
        wire.concat(
          wire.dataChunk(cookie, 1060, sequence(40, 60), { done: false }),
          wire.holeChunk(cookie, 1010, 50, { done: false }),
          wire.dataChunk(cookie, 1000, sequence(10), { done: false }),
          wire.doneChunk(cookie),
        ),
        sizes,
      );
      await promise;
      const wanted = sequence(100);
      wanted.fill(0, 10, 60);
      expect(target).toEqual(wanted);
      expect(harness.session.pending).toBe(0);
    },
  );

  test('of any size, many at once, with chunks interleaved, survives every split', async () => {
    const lengths = [1, 512, 4096, 40_000, 70_000];
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom(...lengths), { minLength: 1, maxLength: 6 }),
        fc.array(fc.integer({ min: 1, max: 90_000 }), { minLength: 1, maxLength: 8 }),
        fc.infiniteStream(fc.nat()),
        async (wanted, sizes, random) => {
          const harness = new Harness();
          const reads = [];
          for (const [i, length] of wanted.entries()) {
            const target = new Uint8Array(length);
            const offset = i * 100_000;
            reads.push({ ...(await harness.read(offset, target)), target, offset });
          }
          const queues = reads.map(({ cookie, target, offset }) => {
            const cut = Math.floor(target.length / 2);
            const parts = [
              wire.dataChunk(cookie, offset + cut, sequence(target.length - cut, offset + cut), {
                done: false,
              }),
            ];
            if (cut > 0)
              parts.push(wire.dataChunk(cookie, offset, sequence(cut, offset), { done: false }));
            return [...parts, wire.doneChunk(cookie)];
          });
          const stream: Uint8Array[] = [];
          for (let left = queues.filter((queue) => queue.length > 0); left.length > 0; ) {
            stream.push(left[random.next().value % left.length].shift() as Uint8Array);
            left = left.filter((queue) => queue.length > 0);
          }
          harness.deliver(wire.concat(...stream), sizes);
          for (const { promise, target, offset } of reads) {
            await promise;
            expect(Buffer.compare(target, sequence(target.length, offset))).toBe(0);
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  test('is one of a thousand in one stream, wherever the buffer of that ends', async () => {
    // Lengths from 90 on, so that the buffer ends at every place of a header.
    for (let length = 90; length < 120; length++) {
      const harness = new Harness();
      const replies: Uint8Array[] = [];
      const reads = [];
      for (let i = 0; i < 1200; i++) {
        const target = new Uint8Array(length);
        const { promise, cookie } = await harness.read(i, target);
        replies.push(wire.dataChunk(cookie, i, sequence(length, i)));
        reads.push({ promise, target });
      }
      harness.deliver(wire.concat(...replies));
      for (const [i, { promise, target }] of reads.entries()) {
        await promise;
        expect(Buffer.compare(target, sequence(length, i))).toBe(0);
      }
    }
  });

  test('that is large is received straight into its target', async () => {
    const harness = new Harness();
    const target = new Uint8Array(65536);
    const { promise, cookie } = await harness.read(0, target);
    const reply = wire.dataChunk(cookie, 0, sequence(65536));
    expect(harness.session.buffer().length).toBe(28);
    harness.deliver(reply.subarray(0, 28));
    expect(harness.session.buffer()).toBe(target);
    harness.deliver(reply.subarray(28));
    await promise;
    expect(Buffer.compare(target, sequence(65536))).toBe(0);
  });

  test('with simple replies takes its length from the request', async () => {
    for (const sizes of SPLITS) {
      const harness = new Harness({ structured: false });
      const target = new Uint8Array(300);
      const first = await harness.read(0, target);
      const second = await harness.write1(0, new Uint8Array(8));
      harness.deliver(
        wire.concat(
          wire.simpleReply(second.cookie),
          wire.simpleReply(first.cookie, 0, sequence(300)),
        ),
        sizes,
      );
      await Promise.all([first.promise, second.promise]);
      expect(target).toEqual(sequence(300));
    }
  });
});

describe('without structured replies', () => {
  test('an error is that of its request only, and a failed read has no bytes', async () => {
    for (const sizes of SPLITS) {
      const harness = new Harness({ structured: false });
      const target = new Uint8Array(16);
      const read = await harness.read(0, new Uint8Array(16));
      const write = await harness.write1(0, sequence(8));
      const other = await harness.read(512, target);
      harness.deliver(
        wire.concat(
          ...[wire.simpleReply(read.cookie, 5), wire.simpleReply(write.cookie, 28)],
          wire.simpleReply(other.cookie, 0, sequence(16)),
        ),
        sizes,
      );
      await expect(read.promise).rejects.toMatchObject({ code: 'ERR_NBD_REMOTE', errno: 'EIO' });
      await expect(write.promise).rejects.toMatchObject({ errno: 'ENOSPC' });
      await other.promise;
      expect(target).toEqual(sequence(16));
    }
  });

  test('a chunk is a violation', async () => {
    const harness = new Harness({ structured: false });
    const read = await harness.read(0, new Uint8Array(16));
    harness.deliver(wire.dataChunk(read.cookie, 0, sequence(16)));
    await expect(read.promise).rejects.toMatchObject({ code: 'ERR_NBD_PROTOCOL' });
  });
});

describe('an error reply', () => {
  test.each<[string, (cookie: Cookie) => Uint8Array]>([
    ['an error chunk', (cookie) => wire.errorChunk(cookie, 5, 'bad sector')],
    [
      'an error chunk behind data',
      (cookie) =>
        wire.concat(
          wire.dataChunk(cookie, 0, sequence(8), { done: false }),
          wire.errorChunk(cookie, 5, 'bad sector'),
        ),
    ],
    [
      'an error chunk before data',
      (cookie) =>
        wire.concat(
          wire.errorChunk(cookie, 5, 'bad sector', { done: false }),
          wire.dataChunk(cookie, 0, sequence(8)),
        ),
    ],
    [
      'an error with its offset',
      (cookie) =>
        wire.chunk(
          cookie,
          0x8002,
          wire.concat(wire.numbers([4, 5], [2, 10]), Buffer.from('bad sector'), new Uint8Array(8)),
        ),
    ],
    [
      'an error of an unknown type',
      (cookie) =>
        wire.chunk(
          cookie,
          0x8abc,
          wire.concat(wire.numbers([4, 5], [2, 10]), Buffer.from('bad sector!')),
        ),
    ],
  ])('as %s fails its request only', async (_, reply) => {
    for (const sizes of SPLITS) {
      const harness = new Harness();
      const failing = await harness.read(0, new Uint8Array(16));
      const other = await harness.read(512, new Uint8Array(8));
      harness.deliver(
        wire.concat(reply(failing.cookie), wire.dataChunk(other.cookie, 512, sequence(8))),
        sizes,
      );
      await expect(failing.promise).rejects.toMatchObject({
        code: 'ERR_NBD_REMOTE',
        errno: 'EIO',
        device: 'nbd://test/',
        offset: 0,
        length: 16,
        message: expect.stringContaining('"bad sector"'),
      });
      await other.promise;
      expect(harness.failures).toEqual([]);
    }
  });
});

describe('a status reply', () => {
  test.each(SPLITS)('holds lists of different lengths, in pieces of %i bytes', async (...sizes) => {
    const harness = new Harness();
    const { promise, cookie } = await harness.status(0, 4096);
    harness.deliver(
      wire.concat(
        wire.statusChunk(
          cookie,
          DIRTY,
          [
            [512, 1],
            [512, 0],
            [512, 0xffffffff],
          ],
          { done: false },
        ),
        wire.statusChunk(cookie, ALLOCATION, [
          [1024, 0],
          [1024, 1],
          [1024, 2],
          [0xffffffff, 7],
        ]),
      ),
      sizes,
    );
    const lists = await promise;
    expect(flagsOf(lists.get(DIRTY) ?? [])).toEqual([
      [512, 1],
      [512, 0],
      [512, 0xffffffff],
    ]);
    expect(flagsOf(lists.get(ALLOCATION) ?? [])).toEqual([
      [1024, Status.data],
      [1024, Status.hole],
      [1024, Status.zero],
      [SIZE - 3072, Status.hole | Status.zero],
    ]);
  });

  test('of a million extents is read without being kept as bytes', async () => {
    const harness = new Harness({ size: 2 ** 40 });
    const { promise, cookie } = await harness.status(0, 2 ** 31);
    const extents = Array.from({ length: 2 ** 20 }, (_, i) => [512, i % 2] as const);
    harness.deliver(wire.statusChunk(cookie, DIRTY, extents), [100_000]);
    const list = (await promise).get(DIRTY);
    expect([list?.count, list?.end]).toEqual([2 ** 20, 2 ** 29]);
  });
});

describe('a reply that breaks the protocol ends the connection and all requests', () => {
  const none = new Uint8Array(0);
  const wrong = (cookie: Cookie) => ({ ...cookie, cookieHigh: cookie.cookieHigh + 1 });
  test.each<[string, (read: Cookie, status: Cookie, write: Cookie) => Uint8Array]>([
    ['a wrong magic', () => new Uint8Array(20)],
    ['a cookie of no slot', () => wire.doneChunk({ cookieHigh: 1, cookieLow: 99 })],
    ['a cookie of an earlier use', (read) => wire.dataChunk(wrong(read), 0, sequence(100))],
    [
      'a cookie whose reply is complete',
      (_, __, write) => wire.concat(wire.simpleReply(write), wire.simpleReply(write)),
    ],
    ['an empty chunk that is not the last', (read) => wire.chunk(read, 0, none, { done: false })],
    ['a chunk of no type with a body', (read) => wire.chunk(read, 0, sequence(4))],
    ['an unknown chunk type', (read) => wire.chunk(read, 77, sequence(4))],
    ['data without bytes', (read) => wire.dataChunk(read, 0, none)],
    ['more data than was asked', (read) => wire.dataChunk(read, 0, sequence(101))],
    ['data behind the range', (read) => wire.dataChunk(read, 50, sequence(51))],
    ['data before the range', (read) => wire.dataChunk(read, 2 ** 53, sequence(10))],
    [
      'data that overlaps',
      (read) =>
        wire.concat(
          wire.dataChunk(read, 0, sequence(60), { done: false }),
          wire.dataChunk(read, 59, sequence(41)),
        ),
    ],
    [
      'a hole over data',
      (read) =>
        wire.concat(
          wire.dataChunk(read, 50, sequence(10), { done: false }),
          wire.holeChunk(read, 0, 51),
        ),
    ],
    [
      'a gap',
      (read) =>
        wire.concat(
          wire.dataChunk(read, 0, sequence(40), { done: false }),
          wire.dataChunk(read, 41, sequence(59)),
        ),
    ],
    ['nothing at all', (read) => wire.doneChunk(read)],
    ['a hole of no bytes', (read) => wire.holeChunk(read, 0, 0)],
    ['a hole of 4 GiB', (read) => wire.holeChunk(read, 0, 0xffffffff)],
    ['a hole of a wrong length', (read) => wire.chunk(read, 2, sequence(11))],
    ['a simple reply to a read', (read) => wire.simpleReply(read, 0, sequence(100))],
    ['a simple reply to a status request', (_, status) => wire.simpleReply(status)],
    ['data for a status request', (_, status) => wire.dataChunk(status, 0, sequence(8))],
    ['data for a write', (_, __, write) => wire.dataChunk(write, 0, sequence(8))],
    ['extents for a read', (read) => wire.statusChunk(read, ALLOCATION, [[512, 0]])],
    ['a context that was not granted', (_, status) => wire.statusChunk(status, 6, [[512, 0]])],
    [
      'a context twice',
      (_, status) =>
        wire.concat(
          wire.statusChunk(status, DIRTY, [[512, 0]], { done: false }),
          wire.statusChunk(status, DIRTY, [[512, 0]]),
        ),
    ],
    ['no extents', (_, status) => wire.statusChunk(status, ALLOCATION, [])],
    ['half an extent', (_, status) => wire.chunk(status, 5, sequence(8))],
    [
      'an extent of no bytes',
      (_, status) =>
        wire.statusChunk(status, ALLOCATION, [
          [512, 0],
          [0, 1],
        ]),
    ],
    [
      'extents behind the range',
      (_, status) =>
        wire.statusChunk(status, ALLOCATION, [
          [4096, 0],
          [512, 1],
        ]),
    ],
    [
      'too many extents',
      (_, status) => wire.chunk(status, 5, none, { length: 4 + 8 * (2 ** 20 + 1) }),
    ],
    ['an error without its fields', (read) => wire.chunk(read, 0x8001, sequence(5))],
    [
      'an error text longer than its chunk',
      (read) => wire.chunk(read, 0x8001, wire.numbers([4, 5], [2, 9])),
    ],
    ['an error of 4 GiB', (read) => wire.chunk(read, 0x8001, none, { length: 0xffffffff })],
  ])('%s', async (_, bytes) => {
    for (const sizes of [[1], [Number.POSITIVE_INFINITY]]) {
      const harness = new Harness();
      const read = await harness.read(0, new Uint8Array(100));
      const status = await harness.status(0, 4096);
      const write = await harness.write1(0, sequence(8));
      harness.deliver(bytes(read.cookie, status.cookie, write.cookie), sizes);
      expect(harness.failures).toMatchObject([{ code: 'ERR_NBD_PROTOCOL' }]);
      await expect(read.promise).rejects.toMatchObject({
        code: 'ERR_NBD_PROTOCOL',
        offset: 0,
        length: 100,
      });
      await expect(status.promise).rejects.toMatchObject({
        code: 'ERR_NBD_PROTOCOL',
        length: 4096,
      });
      await expect(
        harness.session.submit({ command: 3, flags: 0, offset: 0, length: 0 }),
      ).rejects.toMatchObject({
        code: 'ERR_NBD_PROTOCOL',
      });
    }
  });
});

describe('sending', () => {
  test('all requests of a turn have one block of headers, with payloads where they belong', async () => {
    const harness = new Harness();
    const submit = (spec: Partial<Parameters<typeof harness.session.submit>[0]>) =>
      void harness.session
        .submit({ command: 0, flags: 0, offset: 0, length: 8, ...spec })
        .catch(() => {});
    submit({ target: new Uint8Array(8) });
    submit({ target: new Uint8Array(8) });
    submit({ command: 1, source: sequence(8) });
    submit({ target: new Uint8Array(8) });
    await new Promise((resolve) => setImmediate(resolve));
    expect(harness.written.map((bytes) => bytes.length)).toEqual([84, 8, 28]);
    expect(harness.written[1]).toEqual(sequence(8));
  });

  test('a header is never changed while the socket still holds it', async () => {
    const harness = new Harness({ holds: true });
    const kept: { bytes: Uint8Array; copy: Uint8Array }[] = [];
    const { write } = harness;
    harness.write = function (bytes, sent) {
      kept.push({ bytes, copy: bytes.slice() });
      write.call(this, bytes, sent);
    };
    for (let round = 0; round < 8; round++) {
      const requests = Array.from({ length: 300 }, (_, i) =>
        harness.session.submit({ command: 6, flags: 0, offset: i * 512, length: 512 }),
      );
      for (const request of requests) request.catch(() => {});
      await new Promise((resolve) => setImmediate(resolve));
      for (const { bytes, copy } of kept) expect(Buffer.compare(bytes, copy)).toBe(0);
      if (round % 2 === 0) continue;
      kept.length = 0;
      harness.release();
    }
  });

  test('a write is done when it is answered and its bytes are let go of, in either order', async () => {
    for (const replyFirst of [true, false]) {
      const harness = new Harness({ holds: true });
      const { promise, cookie } = await harness.write1(0, sequence(8));
      let done = false;
      const watched = promise.then(() => {
        done = true;
      });
      const steps = [() => harness.deliver(wire.simpleReply(cookie)), () => harness.release()];
      if (!replyFirst) steps.reverse();
      steps[0]();
      await new Promise((resolve) => setImmediate(resolve));
      expect(done).toBe(false);
      steps[1]();
      await watched;
    }
  });
});

describe('giving up', () => {
  test('leaves the target alone, and the stream in step', async () => {
    for (const length of [100, 65536]) {
      const harness = new Harness();
      const controller = new AbortController();
      const target = new Uint8Array(length).fill(0xee);
      const aborted = await harness.read(0, target, controller.signal);
      const other = await harness.read(512, new Uint8Array(8));
      controller.abort(new Error('enough'));
      await expect(aborted.promise).rejects.toMatchObject({
        code: 'ERR_ABORTED',
        cause: new Error('enough'),
      });
      harness.deliver(wire.dataChunk(aborted.cookie, 0, sequence(length)));
      harness.deliver(wire.dataChunk(other.cookie, 512, sequence(8)));
      await other.promise;
      expect(target.every((byte) => byte === 0xee)).toBe(true);
      expect(harness.session.pending).toBe(0);
    }
  });

  test('in the middle of a payload waits until the socket has let go of the target', async () => {
    const harness = new Harness();
    const controller = new AbortController();
    const target = new Uint8Array(65536).fill(0xee);
    const { promise, cookie } = await harness.read(0, target, controller.signal);
    const reply = wire.dataChunk(cookie, 0, sequence(65536));
    harness.deliver(reply.subarray(0, 1000));
    expect(harness.session.buffer().buffer).toBe(target.buffer);
    let rejected = false;
    promise.catch(() => {
      rejected = true;
    });
    controller.abort();
    await new Promise((resolve) => setImmediate(resolve));
    expect(rejected).toBe(false);
    harness.deliver(reply.subarray(1000, 1010));
    await expect(promise).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    const before = target.slice();
    harness.deliver(reply.subarray(1010), [5000]);
    expect(Buffer.compare(target, before)).toBe(0);
    expect(harness.session.pending).toBe(0);
  });

  test('a peer that stalls in the middle of a payload does not hold the caller for ever', async () => {
    const harness = new Harness();
    const controller = new AbortController();
    const { promise, cookie } = await harness.read(0, new Uint8Array(65536), controller.signal);
    harness.deliver(wire.dataChunk(cookie, 0, sequence(65536)).subarray(0, 1000));
    harness.session.buffer();
    controller.abort();
    await expect(promise).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(harness.failures).toMatchObject([{ code: 'ERR_NBD_DISCONNECTED' }]);
  });

  test('a write ends when its bytes are let go of', async () => {
    const harness = new Harness({ holds: true });
    const controller = new AbortController();
    const { promise, cookie } = await harness.write1(0, sequence(8), controller.signal);
    controller.abort();
    setTimeout(() => harness.release(), 10);
    await expect(promise).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(harness.session.pending).toBe(1);
    harness.deliver(wire.simpleReply(cookie));
    expect(harness.session.pending).toBe(0);
  });

  test('before the start sends nothing', async () => {
    const harness = new Harness();
    const signal = AbortSignal.abort();
    await expect(
      harness.session.submit({ command: 3, flags: 0, offset: 0, length: 0, signal }),
    ).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(harness.written).toEqual([]);
  });
});
