import { LacunaError } from 'lacuna/errors';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { ExtentList } from '#dist/extent/index.js';
import { contentOf, fakeDevice, pattern } from '../../support/fake-device.js';
import { concat, numbers } from '../../support/hostile-nbd-wire.js';
import {
  bitmapOf,
  extendedRequest,
  type Reply,
  replies,
  request,
  SIZE,
  served,
  settle,
  Transmission,
} from './server-harness.js';

const [READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZERO, STATUS] = [0, 1, 2, 3, 4, 5, 6, 7];
const [FUA, NO_HOLE, DF, ONE, FAST, PAYLOAD] = [1, 2, 4, 8, 16, 32];
const [EPERM, EIO, EINVAL, ENOSPC, ENOTSUP, ESHUTDOWN] = [1, 5, 22, 28, 95, 108];
const ERROR = 0x8001;

/** The errors of replies, 0 for success, in the order of cookies. */
const errorsOf = (found: readonly Reply[]): number[] =>
  [...found]
    .sort((a, b) => a.cookie - b.cookie)
    .map(({ kind, code, body }) => {
      if (kind === 'simple') return code;
      return code === ERROR ? body.readUInt32BE(0) : 0;
    });

const errorOf = async (bytes: Uint8Array, transmission = new Transmission()) => {
  const answer = errorsOf(replies(await transmission.ask(bytes)));
  // The connection is alive after every refusal.
  expect(errorsOf(replies(await transmission.ask(request(FLUSH, { cookie: 99 }))))).toEqual([0]);
  return answer;
};

const extentsOf = ({ body }: Reply): number[][] => {
  const extents: number[][] = [];
  for (let at = 4; at < body.length; at += 8) {
    extents.push([body.readUInt32BE(at), body.readUInt32BE(at + 4)]);
  }
  return extents;
};

const broken = (error: Error) => fakeDevice(SIZE, { read: () => Promise.reject(error) });

describe('reads and writes', () => {
  test('bytes are stored and read back, small and large, however they arrive', async () => {
    for (const sizes of [[1], [7, 3], [65536], [Number.POSITIVE_INFINITY]]) {
      const device = fakeDevice(SIZE);
      const transmission = new Transmission({ export: served({ device }) });
      const [small, large] = [pattern(100), pattern(200_000, 2)];
      const bytes = concat(
        request(WRITE, { cookie: 1, offset: 5, payload: small }),
        request(WRITE, { cookie: 2, offset: 1000, payload: large, flags: FUA }),
        request(FLUSH, { cookie: 3 }),
      );
      expect(errorsOf(replies(await transmission.ask(bytes, sizes)))).toEqual([0, 0, 0]);
      const content = await contentOf(device);
      expect(Buffer.compare(content.subarray(5, 105), small)).toBe(0);
      expect(Buffer.compare(content.subarray(1000, 201_000), large)).toBe(0);
    }
  });

  test('a simple read is a header and its bytes', async () => {
    const device = fakeDevice(SIZE);
    await device.write(10, pattern(30_000));
    const transmission = new Transmission({ export: served({ device }), structured: false });
    for (const length of [4, 30_000]) {
      const answer = Buffer.from(await transmission.ask(request(READ, { offset: 10, length })));
      expect(answer.subarray(0, 16).toString('hex')).toBe('674466980000000000000007' + '00000001');
      expect(Buffer.compare(answer.subarray(16), pattern(30_000).subarray(0, length))).toBe(0);
    }
  });

  test('a structured read says where its bytes belong', async () => {
    const device = fakeDevice(SIZE);
    await device.write(0, pattern(70_000));
    const transmission = new Transmission({ export: served({ device }) });
    for (const [offset, length] of [
      [3, 4],
      [100, 60_000],
    ]) {
      const [reply] = replies(await transmission.ask(request(READ, { offset, length })));
      expect(reply).toMatchObject({ kind: 'chunk', done: true, code: 1 });
      expect(Number(reply.body.readBigUInt64BE(0))).toBe(offset);
      const expected = pattern(70_000).subarray(offset, offset + length);
      expect(Buffer.compare(reply.body.subarray(8), expected)).toBe(0);
    }
  });

  test('a dense disk is asked for holes once in a while, however many connections read it', async () => {
    const device = fakeDevice(SIZE);
    await device.write(0, pattern(SIZE));
    const asked = vi.spyOn(device, 'someExtents');
    const each = served({ device });
    const [one, other] = [new Transmission({ export: each }), new Transmission({ export: each })];
    for (let at = 0; at < SIZE / 2; at += 65536) {
      await one.ask(request(READ, { offset: at, length: 65536 }));
      await other.ask(request(READ, { offset: SIZE / 2 + at, length: 65536 }));
    }
    expect(asked.mock.calls.length).toBeLessThanOrEqual(4);
  });

  test('what is zero is told, not sent; unless pieces are forbidden', async () => {
    const device = fakeDevice(SIZE);
    await device.write(65536, pattern(65536));
    const transmission = new Transmission({ export: served({ device }) });
    const range = { offset: 1000, length: 3 * 65536 };
    const found = replies(await transmission.ask(request(READ, range)));
    expect(found.map(({ code, done }) => [code, done])).toEqual([
      [2, false],
      [1, false],
      [2, true],
    ]);
    expect(found[0].body.toString('hex')).toBe('00000000000003e8' + '0000fc18');
    expect(Number(found[1].body.readBigUInt64BE(0))).toBe(65536);
    expect(Buffer.compare(found[1].body.subarray(8), pattern(65536))).toBe(0);
    const whole = replies(await transmission.ask(request(READ, { ...range, flags: DF })));
    expect(whole).toMatchObject([{ code: 1, done: true }]);
    expect(whole[0].body.length).toBe(8 + range.length);
  });

  test('status that fails or lies short is taken for data', async () => {
    const failing = fakeDevice(SIZE, { extents: () => Promise.reject(new Error('no')) });
    const short = fakeDevice(SIZE, { extents: async () => [ExtentList.of(0, 1, 6)] });
    for (const device of [failing, short]) {
      const transmission = new Transmission({ export: served({ device }) });
      const found = replies(await transmission.ask(request(READ, { length: 100_000 })));
      expect(found.at(-1)).toMatchObject({ code: 1, done: true });
    }
  });

  test('a read or write of nothing succeeds', async () => {
    expect(await errorOf(concat(request(READ), request(WRITE, { cookie: 2 })))).toEqual([0, 0]);
  });

  test('memory is used again only when the socket let go of it', async () => {
    const device = fakeDevice(SIZE);
    await device.write(0, pattern(SIZE));
    const transmission = new Transmission({ export: served({ device }), structured: false });
    transmission.holds = true;
    await transmission.say(request(READ, { cookie: 1, offset: 0, length: 100_000 }));
    await settle();
    await transmission.say(request(READ, { cookie: 2, offset: 200_000, length: 100_000 }));
    await transmission.say(
      request(WRITE, { cookie: 3, offset: 0, payload: new Uint8Array(100_000) }),
    );
    await settle();
    transmission.release();
    const answer = Buffer.from(transmission.take());
    expect(Buffer.compare(answer.subarray(16, 100_016), pattern(SIZE).subarray(0, 100_000))).toBe(
      0,
    );
  });
});

test('small answers that the socket has not taken are not written over', async () => {
  const device = fakeDevice(SIZE);
  await device.write(0, pattern(SIZE));
  const transmission = new Transmission({ export: served({ device }), structured: false });
  transmission.holds = true;
  // More than one block of answers, and less than what may wait.
  const length = 10_000;
  const count = 25;
  for (let cookie = 0; cookie < count; cookie++) {
    await transmission.say(request(READ, { cookie, offset: cookie * length, length }));
    await settle();
  }
  transmission.release();
  await settle();
  const answer = Buffer.from(transmission.take());
  expect(answer.length).toBe(count * (16 + length));
  const cookies = Array.from({ length: count }, (_, i) =>
    answer.readUInt32BE(i * (16 + length) + 12),
  );
  expect(cookies).toEqual(Array.from({ length: count }, (_, i) => i));
  for (let i = 0; i < count; i++) {
    const at = i * (16 + length);
    const offset = answer.readUInt32BE(at + 12) * length;
    const expected = pattern(SIZE).subarray(offset, offset + length);
    expect(Buffer.compare(answer.subarray(at + 16, at + 16 + length), expected)).toBe(0);
  }
});

describe('what cannot be done is refused, and the connection lives', () => {
  const readOnly = () => new Transmission({ export: served({ readOnly: true }) });
  const simple = () => new Transmission({ structured: false, contexts: [] });

  test.each([
    ['an unknown command', request(77), EINVAL],
    ['an unknown flag', request(READ, { flags: 0x100, length: 1 }), EINVAL],
    ['a flag of another command', request(READ, { flags: NO_HOLE, length: 1 }), EINVAL],
    ['an unknown flag on a write', request(WRITE, { flags: 0x40, payload: pattern(9) }), EINVAL],
    [
      'a payload flag without extended headers',
      request(WRITE, { flags: PAYLOAD, payload: pattern(9) }),
      EINVAL,
    ],
    ['a read behind the end', request(READ, { offset: SIZE - 1, length: 2 }), EINVAL],
    ['a read far behind the end', request(READ, { offset: 2 ** 53 - 1, length: 2 }), EINVAL],
    ['a write behind the end', request(WRITE, { offset: SIZE, payload: pattern(9) }), ENOSPC],
    ['a zero behind the end', request(ZERO, { offset: 1, length: SIZE }), ENOSPC],
    ['a trim behind the end', request(TRIM, { offset: 1, length: SIZE }), ENOSPC],
    ['a status behind the end', request(STATUS, { offset: 1, length: SIZE }), EINVAL],
    ['a status of nothing', request(STATUS), EINVAL],
    ['a read that is too long', request(READ, { length: 2 ** 25 + 1 }), EINVAL],
    ['a cache that is too long', request(CACHE, { length: 2 ** 25 + 1 }), EINVAL],
  ])('%s', async (_, bytes, errno) => {
    expect(await errorOf(bytes)).toEqual([errno]);
    expect(await errorOf(bytes, simple())).toEqual([errno]);
  });

  test.each([
    ['write', request(WRITE, { payload: pattern(100_000) })],
    ['zero', request(ZERO, { length: 10 })],
    ['trim', request(TRIM, { length: 10 })],
  ])('%s on a read-only export', async (_, bytes) => {
    expect(await errorOf(bytes, readOnly())).toEqual([EPERM]);
  });

  test('a write that is too long is drained', async () => {
    const transmission = new Transmission({}, { maxPayload: 2 ** 20 });
    const bytes = request(WRITE, { payload: new Uint8Array(2 ** 20 + 1) });
    expect(await errorOf(bytes, transmission)).toEqual([EINVAL]);
  });

  test('a payload that no client can mean ends the connection', async () => {
    const transmission = new Transmission();
    await transmission.say(request(WRITE, { length: 2 ** 31 }));
    expect(transmission.failure).toMatchObject({ code: 'ERR_NBD_PROTOCOL' });
  });

  test('a request without its magic number ends the connection', async () => {
    const transmission = new Transmission();
    await transmission.say(new Uint8Array(28));
    expect(transmission.failure).toMatchObject({ code: 'ERR_NBD_PROTOCOL' });
  });

  test('a read in one piece without structured replies, and status without contexts', async () => {
    expect(await errorOf(request(READ, { flags: DF, length: 1 }), simple())).toEqual([EINVAL]);
    expect(await errorOf(request(STATUS, { length: 1 }), simple())).toEqual([EINVAL]);
  });

  test('what was not offered is refused', async () => {
    const device = fakeDevice(SIZE, { capabilities: { write: true } });
    const bytes = concat(
      request(TRIM, { cookie: 1, length: 1 }),
      request(FLUSH, { cookie: 2 }),
      request(WRITE, { cookie: 3, flags: FUA, payload: pattern(1) }),
      request(ZERO, { cookie: 4, flags: FAST, length: 1 }),
      request(ZERO, { cookie: 5, length: 1 }),
    );
    const found = replies(await new Transmission({ export: served({ device }) }).ask(bytes));
    expect(errorsOf(found)).toEqual([EINVAL, EINVAL, EINVAL, EINVAL, 0]);
  });
});

describe('a request with large numbers', () => {
  const GIB = 2 ** 30;

  test('offsets and lengths with the highest bits set are read as what they are', async () => {
    const device = fakeDevice(8 * GIB);
    const transmission = new Transmission({ export: served({ device }) });
    const offset = 3 * GIB;
    const found = replies(
      await transmission.ask(
        concat(
          request(WRITE, { cookie: 1, offset, payload: pattern(512) }),
          request(WRITE, { cookie: 2, offset: 7 * GIB - 512, payload: pattern(1024) }),
          request(ZERO, { cookie: 3, offset: offset + 512, length: 2 ** 32 - 512 }),
          request(READ, { cookie: 4, offset, length: 512 }),
        ),
      ),
    );
    expect(errorsOf(found)).toEqual([0, 0, 0, 0]);
    const read = found.find(({ cookie }) => cookie === 4)!;
    expect(Number(read.body.readBigUInt64BE(0))).toBe(offset);
    expect(Buffer.compare(read.body.subarray(8), pattern(512))).toBe(0);
    // The zeroes end in the middle of the second write's bytes.
    const rest = new Uint8Array(1024);
    await device.read(7 * GIB - 512, rest);
    expect(rest.subarray(0, 512).every((byte) => byte === 0)).toBe(true);
    expect(Buffer.compare(rest.subarray(512), pattern(1024).subarray(512))).toBe(0);
  });

  test.each([2n ** 63n, 2n ** 64n - 1n, 2n ** 53n])(
    'offset %i is behind every end',
    async (offset) => {
      for (const [command, errno] of [
        [READ, EINVAL],
        [ZERO, ENOSPC],
        [STATUS, EINVAL],
      ]) {
        const bytes = request(command, { length: 512 });
        new DataView(bytes.buffer).setBigUint64(16, offset);
        expect(await errorOf(bytes)).toEqual([errno]);
      }
    },
  );
});

describe('errors of the device', () => {
  test.each([
    ['EIO', EIO],
    ['ENOSPC', ENOSPC],
    ['EDQUOT', ENOSPC],
    ['EFBIG', ENOSPC],
    ['EROFS', EPERM],
    ['EACCES', EPERM],
    ['EWEIRD', EIO],
  ])('%s becomes a number of the wire', async (errno, value) => {
    const device = broken(new LacunaError('ERR_DEVICE_IO', 'secret/path: broken', { errno }));
    const transmission = new Transmission({ export: served({ device }) });
    const [reply] = replies(await transmission.ask(request(READ, { length: 10 })));
    expect(errorsOf([reply])).toEqual([value]);
    expect(reply.done).toBe(true);
    const text = reply.body.subarray(6).toString();
    expect(reply.body.readUInt16BE(4)).toBe(text.length);
    expect(text).toContain('10 bytes at 0');
    expect(text).not.toContain('secret');
    expect(transmission.deviceErrors).toHaveLength(1);
  });

  test('an error of any kind is answered with EIO, and a closed device with ESHUTDOWN', async () => {
    const strange = broken(new TypeError('x'));
    expect(
      await errorOf(
        request(READ, { length: 9 }),
        new Transmission({ export: served({ device: strange }) }),
      ),
    ).toEqual([EIO]);
    const device = fakeDevice(SIZE);
    await device.close();
    const transmission = new Transmission({ export: served({ device }) });
    const found = replies(await transmission.ask(request(READ, { length: 10 })));
    expect(errorsOf(found)).toEqual([ESHUTDOWN]);
  });

  test('a device that throws instead of rejecting ends nothing', async () => {
    const device = Object.create(fakeDevice(SIZE), {
      size: { value: SIZE },
      limits: { value: { minimum: 1, preferred: 512 } },
      capabilities: { value: fakeDevice(SIZE).capabilities },
      flush: {
        value: () => {
          throw new Error('thrown');
        },
      },
    });
    const found = replies(
      await new Transmission({ export: served({ device }) }).ask(request(FLUSH)),
    );
    expect(errorsOf(found)).toEqual([EIO]);
  });

  test('without structured replies an error is a number, and no bytes follow', async () => {
    const device = broken(new LacunaError('ERR_DEVICE_IO', 'x', { errno: 'EIO' }));
    const transmission = new Transmission({ export: served({ device }), structured: false });
    const answer = await transmission.ask(request(READ, { length: 10 }));
    expect(Buffer.from(answer).toString('hex')).toBe('674466980000000500000007' + '00000001');
  });
});

describe('zero, trim, cache and flush', () => {
  const spied = () => {
    const device = fakeDevice(SIZE);
    const spies = {
      zero: vi.spyOn(device, 'zero'),
      discard: vi.spyOn(device, 'discard'),
      flush: vi.spyOn(device, 'flush'),
      write: vi.spyOn(device, 'write'),
      read: vi.spyOn(device, 'read'),
    };
    return { ...spies, transmission: new Transmission({ export: served({ device }) }) };
  };

  test.each([
    [0, { unmap: true, fast: false, fua: false }],
    [NO_HOLE, { unmap: false, fast: false, fua: false }],
    [FAST | FUA, { unmap: true, fast: true, fua: true }],
  ])('zero with flags %i', async (flags, options) => {
    const { zero, transmission } = spied();
    const bytes = request(ZERO, { flags, offset: 7, length: 9 });
    expect(errorsOf(replies(await transmission.ask(bytes)))).toEqual([0]);
    expect(zero).toHaveBeenCalledWith(7, 9, expect.objectContaining(options));
  });

  test('a fast zero that would be slow is ENOTSUP; another one is not', async () => {
    const unsupported = () => Promise.reject(new LacunaError('ERR_DEVICE_UNSUPPORTED', 'slow'));
    const device = fakeDevice(SIZE, { zero: unsupported });
    const transmission = new Transmission({ export: served({ device }) });
    const bytes = concat(
      request(ZERO, { cookie: 1, flags: FAST, length: 9 }),
      request(ZERO, { cookie: 2, length: 9 }),
    );
    expect(errorsOf(replies(await transmission.ask(bytes)))).toEqual([ENOTSUP, 0]);
    expect(transmission.deviceErrors).toEqual([]);
  });

  test('trim discards, and with FUA flushes behind it', async () => {
    const { discard, flush, transmission } = spied();
    await transmission.ask(request(TRIM, { offset: 7, length: 9 }));
    expect(discard).toHaveBeenCalledWith(7, 9, expect.anything());
    expect(flush).not.toHaveBeenCalled();
    await transmission.ask(request(TRIM, { flags: FUA, offset: 7, length: 9 }));
    expect(flush).toHaveBeenCalledTimes(1);
  });

  test('cache reads and sends nothing', async () => {
    const { read, transmission } = spied();
    const found = replies(await transmission.ask(request(CACHE, { offset: 7, length: 5000 })));
    expect(found).toMatchObject([{ kind: 'simple', code: 0 }]);
    expect(read.mock.calls[0][1]).toHaveLength(5000);
  });

  test('FUA is passed on, and taken on every command', async () => {
    const { write, transmission } = spied();
    await transmission.ask(request(WRITE, { flags: FUA, payload: pattern(9) }));
    await transmission.ask(request(WRITE, { payload: pattern(9) }));
    expect(write.mock.calls.map(([, , options]) => options)).toEqual([
      { fua: true },
      { fua: false },
    ]);
    const bytes = [READ, FLUSH, CACHE, STATUS].map((command, cookie) =>
      request(command, { cookie, flags: FUA, length: command === FLUSH ? 0 : 9 }),
    );
    expect(new Set(errorsOf(replies(await transmission.ask(concat(...bytes)))))).toEqual(
      new Set([0]),
    );
  });
});

describe('block status', () => {
  const device = fakeDevice(SIZE, {
    extents: async (offset) => {
      const list = new ExtentList(offset);
      for (const flags of [1, 2, 4, 6]) list.push(65536, flags);
      list.push(SIZE, 1);
      return [list];
    },
  });
  const bitmaps = { b: bitmapOf(SIZE, { offset: 1000, length: 500 }) };
  const open = (limits = {}) => new Transmission({ export: served({ device, bitmaps }) }, limits);

  test('tells every context in a chunk of its own, the last one done', async () => {
    const found = replies(await open().ask(request(STATUS, { length: 2 ** 19 })));
    expect(found.map(({ code, done, body }) => [code, done, body.readUInt32BE(0)])).toEqual([
      [5, false, 0],
      [5, true, 1],
    ]);
    // HOLE is 1 and ZERO is 2 on the wire; a hole alone must be read.
    expect(extentsOf(found[0])).toEqual([
      [65536, 0],
      [65536, 2],
      [65536, 1],
      [65536, 3],
      [2 ** 18, 0],
    ]);
    expect(extentsOf(found[1])).toEqual([
      [1000, 0],
      [500, 1],
      [2 ** 19 - 1500, 0],
    ]);
  });

  test('REQ_ONE tells one extent, none longer than the request', async () => {
    const bytes = request(STATUS, { flags: ONE, offset: 900, length: 2 ** 19 });
    const found = replies(await open().ask(bytes));
    expect(found.map(extentsOf)).toEqual([[[65536, 0]], [[100, 0]]]);
    const short = replies(
      await open().ask(request(STATUS, { flags: ONE, offset: 1100, length: 7 })),
    );
    expect(short.map(extentsOf)).toEqual([[[7, 0]], [[7, 1]]]);
  });

  test.each<[string, (offset: number) => ExtentList[]]>([
    ['nothing', () => []],
    ['an empty list', (offset) => [new ExtentList(offset)]],
    ['of bytes behind', (offset) => [ExtentList.of(offset + 1, SIZE, 6)]],
    ['of bytes before', (offset) => [ExtentList.of(offset - 1, SIZE, 6)]],
  ])('a device that tells %s fails the request, and a read takes it for data', async (_, tell) => {
    const vague = Object.create(fakeDevice(SIZE), {
      size: { value: SIZE },
      limits: { value: { minimum: 1, preferred: 512 } },
      capabilities: { value: { ...device.capabilities, exactStatus: true } },
      someExtents: { value: async (offset: number) => tell(offset) },
      read: { value: async (_offset: number, target: Uint8Array) => void target.fill(7) },
    });
    const transmission = new Transmission({ export: served({ device: vague }) });
    const status = replies(await transmission.ask(request(STATUS, { offset: 9, length: 100 })));
    expect(status).toMatchObject([{ code: 0x8001 }]);
    const read = replies(await transmission.ask(request(READ, { offset: 9, length: 100_000 })));
    expect(read).toMatchObject([{ code: 1, done: true }]);
  });

  test('a device that tells more than it was asked is cut short', async () => {
    const generous = Object.create(fakeDevice(SIZE), {
      size: { value: SIZE },
      limits: { value: { minimum: 1, preferred: 512 } },
      capabilities: { value: device.capabilities },
      someExtents: { value: async (offset: number) => [ExtentList.of(offset, SIZE, 1)] },
    });
    const transmission = new Transmission({ export: served({ device: generous }) });
    const found = replies(await transmission.ask(request(STATUS, { offset: 9, length: 100 })));
    expect(found.map(extentsOf)).toEqual([[[100, 0]]]);
  });

  test('a long answer is cut', async () => {
    const found = replies(await open({ maxExtents: 2 }).ask(request(STATUS, { length: SIZE })));
    expect(found.map((reply) => extentsOf(reply).length)).toEqual([2, 2]);
  });

  test('only granted contexts are told', async () => {
    const each = served({ device, bitmaps });
    const transmission = new Transmission({ export: each, contexts: each.contexts.slice(1) });
    const found = replies(await transmission.ask(request(STATUS, { length: 100 })));
    expect(found.map(({ body }) => body.readUInt32BE(0))).toEqual([1]);
  });

  test('status that fails is an error of the request', async () => {
    const failing = fakeDevice(SIZE, { extents: () => Promise.reject(new Error('no')) });
    const transmission = new Transmission({ export: served({ device: failing }) });
    expect(await errorOf(request(STATUS, { length: 100 }), transmission)).toEqual([EIO]);
  });
});

describe('extended headers', () => {
  const open = (options = {}) =>
    new Transmission({ extended: true, structured: false, ...options });

  test('every answer is an extended chunk with the offset of its request', async () => {
    const bytes = concat(
      extendedRequest(WRITE, { cookie: 1, offset: 70, flags: PAYLOAD, payload: pattern(9) }),
      extendedRequest(READ, { cookie: 2, offset: 1000, length: 5 }),
      extendedRequest(READ, { cookie: 3, offset: 2 ** 40, length: 5 }),
      extendedRequest(FLUSH, { cookie: 4 }),
    );
    const found = replies(await open().ask(bytes)).sort((a, b) => a.cookie - b.cookie);
    expect(found.map(({ kind, code, offset, done }) => [kind, code, offset, done])).toEqual([
      ['extended', 0, 70, true],
      ['extended', 1, 1000, true],
      ['extended', ERROR, 2 ** 40, true],
      ['extended', 0, 0, true],
    ]);
  });

  test('an offset that no export reaches is answered with its eight bytes as they came', async () => {
    for (const bytes of ['ffffffffffffffff', '8000000000000001', '0020000000000001']) {
      const asked = extendedRequest(READ, { cookie: 5, length: 512 });
      asked.set(Buffer.from(bytes, 'hex'), 16);
      const answer = Buffer.from(await open().ask(asked));
      expect(answer.subarray(16, 24).toString('hex')).toBe(bytes);
      const [{ code, body }] = replies(answer);
      expect([code, body.readUInt32BE(0)]).toEqual([ERROR, EINVAL]);
    }
  });

  test('lengths have 64 bits', async () => {
    const size = 2 ** 50;
    const transmission = open({ export: served({ device: fakeDevice(size) }) });
    const zeroed = replies(await transmission.ask(extendedRequest(ZERO, { length: size })));
    expect(errorsOf(zeroed)).toEqual([0]);
    const [status] = replies(await transmission.ask(extendedRequest(STATUS, { length: size })));
    expect(status).toMatchObject({ code: 6, done: true });
    expect(status.body.toString('hex')).toBe(
      '0000000000000001' + '0004000000000000' + '0000000000000003',
    );
  });

  test('a payload asks for some contexts and a length of its own', async () => {
    const each = served({ bitmaps: { b: bitmapOf(SIZE), c: bitmapOf(SIZE) } });
    const ask = async (payload: Uint8Array) => {
      const fields = { flags: PAYLOAD, offset: 4096, payload };
      return replies(
        await open({ export: each, contexts: each.contexts }).ask(extendedRequest(STATUS, fields)),
      );
    };
    const found = await ask(numbers([8, 1000], [4, 2], [4, 0]));
    expect(found.map(({ body }) => body.readUInt32BE(0))).toEqual([0, 2]);
    expect(found[1].body.readUInt32BE(12)).toBe(1000);
    const last = extendedRequest(STATUS, {
      ...{ flags: PAYLOAD, offset: SIZE - 4, payload: numbers([8, 4], [4, 1]) },
    });
    const told = replies(await open({ export: each, contexts: each.contexts }).ask(last));
    expect(told.map(({ body }) => [body.readUInt32BE(0), body.readUInt32BE(12)])).toEqual([[1, 4]]);
    for (const wrong of [
      numbers([8, 1000], [4, 7]),
      numbers([8, 1000], [4, 1], [4, 1]),
      numbers([8, 1000]),
      numbers([8, 0], [4, 1]),
      numbers([8, SIZE], [4, 1]),
      numbers([8, 1000], [4, 1], [1, 0]),
      numbers([4, 1000]),
      new Uint8Array(100_000),
    ]) {
      expect(errorsOf(await ask(wrong))).toEqual([EINVAL]);
    }
  });

  test('a payload where none belongs is drained and refused', async () => {
    const transmission = open();
    const bytes = concat(
      extendedRequest(READ, { cookie: 1, flags: PAYLOAD, payload: pattern(100_000) }),
      extendedRequest(77, { cookie: 2, flags: PAYLOAD, payload: pattern(10) }),
      extendedRequest(FLUSH, { cookie: 3 }),
    );
    expect(errorsOf(replies(await transmission.ask(bytes)))).toEqual([EINVAL, EINVAL, 0]);
  });

  test('a write without the flag has its payload all the same', async () => {
    const transmission = open();
    const bytes = concat(
      extendedRequest(WRITE, { cookie: 1, payload: pattern(100) }),
      extendedRequest(FLUSH, { cookie: 2 }),
    );
    expect(errorsOf(replies(await transmission.ask(bytes)))).toEqual([0, 0]);
  });

  test('compact requests end the connection', async () => {
    const transmission = open();
    await transmission.say(concat(request(FLUSH), request(FLUSH)));
    expect(transmission.failure).toMatchObject({ code: 'ERR_NBD_PROTOCOL' });
  });
});

describe('the limits of a session', () => {
  /** A device whose reads wait until they are let go. */
  function waiting() {
    const waits: (() => void)[] = [];
    const device = fakeDevice(SIZE * 64, {
      read: () => new Promise((resolve) => waits.push(resolve as () => void)),
      extents: undefined,
    });
    return { device, waits };
  }

  const reads = (count: number, length: number) =>
    concat(...Array.from({ length: count }, (_, cookie) => request(READ, { cookie, length })));

  test('leave requests beyond the most at a time in the socket, and answer them later', async () => {
    const { device, waits } = waiting();
    const transmission = new Transmission({ export: served({ device }) }, { maxRequests: 3 });
    await transmission.say(reads(10, 100));
    await settle();
    expect([waits.length, transmission.paused]).toEqual([3, true]);
    waits.shift()!();
    await settle();
    expect(waits.length).toBe(3);
    for (let turn = 0; turn < 10; turn++) {
      for (const wait of waits.splice(0)) wait();
      await settle();
    }
    expect(replies(transmission.take())).toHaveLength(10);
    expect(transmission.paused).toBe(false);
  });

  test('leave requests beyond the most bytes at a time in the socket, but allow one of any length', async () => {
    const { device, waits } = waiting();
    const transmission = new Transmission({ export: served({ device }) }, { maxBytes: 250_000 });
    await transmission.say(concat(reads(5, 100_000)));
    await settle();
    expect(waits.length).toBe(2);
    const large = new Transmission({ export: served({ device }) }, { maxBytes: 1 });
    waits.length = 0;
    await large.say(reads(5, 2 ** 25));
    await settle();
    expect(waits.length).toBe(1);
  });

  test('leave the requests of a client that takes no answers in the socket', async () => {
    const transmission = new Transmission({ structured: false });
    transmission.holds = true;
    for (let i = 0; i < 20; i++) await transmission.say(reads(10, 2 ** 20));
    await settle();
    expect(transmission.paused).toBe(true);
    expect(transmission.take().length).toBeLessThan(3 * 2 ** 20);
    transmission.release();
    await settle();
    expect(transmission.take().length).toBeGreaterThan(2 ** 20);
  });

  test('count a status answer at its longest', async () => {
    let asked = 0;
    const device = fakeDevice(SIZE, {
      extents: () => {
        asked++;
        return new Promise(() => {});
      },
    });
    const limits = { maxExtents: 2 ** 17, maxBytes: 4 * 2 ** 20 };
    const transmission = new Transmission({ export: served({ device }) }, limits);
    await transmission.say(
      concat(...Array.from({ length: 64 }, (_, cookie) => request(STATUS, { cookie, length: 9 }))),
    );
    await settle();
    expect(asked).toBe(4);
  });
});

describe('the end of a session', () => {
  test('DISC answers what came before it, and nothing after it', async () => {
    const transmission = new Transmission();
    const bytes = concat(
      request(WRITE, { cookie: 1, payload: pattern(9) }),
      request(FLUSH, { cookie: 2 }),
      request(DISC, { cookie: 3 }),
      request(FLUSH, { cookie: 4 }),
    );
    const found = replies(await transmission.ask(bytes));
    expect(found.map(({ cookie }) => cookie).sort()).toEqual([1, 2]);
    expect(transmission.over).toBe(true);
  });

  test('a shutdown waits for what is in flight', async () => {
    let finish: () => void = () => {};
    const read = () => new Promise<void>((resolve) => (finish = resolve));
    const device = fakeDevice(SIZE, { read });
    const transmission = new Transmission({ export: served({ device }) });
    await transmission.say(request(READ, { length: 9 }));
    transmission.session.shutdown();
    await settle();
    expect([transmission.over, transmission.paused]).toEqual([false, true]);
    finish();
    await settle();
    expect(replies(transmission.take())).toHaveLength(1);
    expect(transmission.over).toBe(true);
  });

  test('a shutdown does not wait for the rest of a payload', async () => {
    const transmission = new Transmission();
    await transmission.say(request(WRITE, { length: 100_000, payload: pattern(50_000) }));
    transmission.session.shutdown();
    await settle();
    expect(transmission.over).toBe(true);
  });

  test('what a vanished client asked for is stopped where it can be, and answered to nobody', async () => {
    let signal: AbortSignal | undefined;
    const device = fakeDevice(SIZE);
    vi.spyOn(device, 'zero').mockImplementation((_offset, _length, options) => {
      signal = options?.signal;
      return new Promise((_, reject) =>
        signal?.addEventListener('abort', () => reject(new Error('gone'))),
      );
    });
    const transmission = new Transmission({ export: served({ device }) });
    await transmission.say(request(ZERO, { length: 9 }));
    transmission.session.closed();
    await settle();
    expect(signal?.aborted).toBe(true);
    expect([transmission.take().length, transmission.deviceErrors]).toEqual([0, []]);
  });
});

describe('a limit for clients that do nothing', () => {
  const IDLE_MS = 1000;

  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  /** The sockets are looked at before a limit expires. */
  const pass = async (milliseconds: number) => {
    vi.advanceTimersByTime(milliseconds);
    await settle();
  };
  /** A tick that has begun before the last progress does not count. */
  const LATEST_MS = (IDLE_MS * 9) / 8;

  const idling = (entered = {}) => new Transmission(entered, undefined, IDLE_MS);
  const tooLong = { code: 'ERR_TIMEOUT' };

  test('hangs up on one that asks nothing', async () => {
    const transmission = idling();
    await pass(IDLE_MS - 1);
    expect(transmission.failure).toBeUndefined();
    await pass(1);
    expect(transmission.failure).toMatchObject(tooLong);
  });

  test('starts anew with everything that comes', async () => {
    const transmission = idling();
    for (let i = 0; i < 5; i++) {
      await pass(IDLE_MS - 1);
      await transmission.ask(request(FLUSH, { cookie: i }));
    }
    expect(transmission.failure).toBeUndefined();
    await pass(LATEST_MS);
    expect(transmission.failure).toMatchObject(tooLong);
  });

  test('lets a payload come slowly, as long as it comes', async () => {
    const transmission = idling();
    const write = request(WRITE, { payload: pattern(6000) });
    for (let at = 0; at < write.length; at += 1000) {
      await pass(IDLE_MS - 1);
      await transmission.say(write.subarray(at, at + 1000));
    }
    await settle();
    expect(transmission.failure).toBeUndefined();
    expect(errorsOf(replies(transmission.take()))).toEqual([0]);
  });

  test('does not blame the client for a device that takes long', async () => {
    let done: () => void = () => {};
    const waits = new Promise<void>((resolve) => {
      done = resolve;
    });
    const device = fakeDevice(SIZE, { flush: () => waits });
    const transmission = idling({ export: served({ device }) });
    await transmission.say(request(FLUSH));
    await pass(10 * IDLE_MS);
    expect(transmission.failure).toBeUndefined();
    done();
    await settle();
    expect(errorsOf(replies(transmission.take()))).toEqual([0]);
    await pass(2 * IDLE_MS);
    expect(transmission.failure).toMatchObject(tooLong);
  });

  test('hangs up on one that does not take its answer', async () => {
    const transmission = idling();
    transmission.holds = true;
    await transmission.say(request(READ, { length: 65536 }));
    await settle();
    await pass(LATEST_MS);
    expect(transmission.failure).toMatchObject(tooLong);
  });

  test('hangs up on one that stops within its payload', async () => {
    const transmission = idling();
    const write = request(WRITE, { payload: pattern(65536) });
    await transmission.say(write.subarray(0, 5000));
    await pass(LATEST_MS);
    expect(transmission.failure).toMatchObject(tooLong);
  });

  test.each([
    ['disconnects', (client: Transmission) => client.say(request(DISC))],
    ['ends its side', (client: Transmission) => client.session.shutdown()],
  ])('is there for one that %s and does not take its answer', async (_, leave) => {
    const transmission = new Transmission();
    transmission.holds = true;
    await transmission.say(request(READ, { length: 65536, flags: DF }));
    await leave(transmission);
    await settle();
    await pass(2000);
    expect([transmission.over, transmission.failure]).toEqual([false, undefined]);
    await pass(60_000);
    expect(transmission.failure).toMatchObject(tooLong);
  });

  test('is not there unless somebody sets it', async () => {
    const transmission = new Transmission();
    await pass(2 ** 31);
    expect(transmission.failure).toBeUndefined();
  });
});
