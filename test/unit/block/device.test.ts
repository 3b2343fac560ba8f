import { describe, expect, it } from 'vitest';
import { Device, type Driver, MemoryDriver, NullDriver, passThrough } from '#dist/block/index.js';
import { LacunaError } from '#dist/errors/index.js';
import { ExtentList, Status } from '#dist/extent/index.js';

const SIZE = 1024 * 1024;
const DIRTY = 'qemu:dirty-bitmap:b0';

/** Memory with some of its parts replaced; a part that is set to undefined is missing. */
function changed(change: Partial<Driver> = {}): Driver {
  const memory = new MemoryDriver({ size: SIZE });
  return {
    name: 'changed',
    size: SIZE,
    limits: memory.limits,
    read: (offset, target) => memory.read(offset, target),
    write: (offset, source) => memory.write(offset, source),
    zero: (offset, length) => memory.zero(offset, length),
    discard: (offset, length) => memory.discard(offset, length),
    flush: () => memory.flush(),
    extents: (offset, length, contexts) => memory.extents(offset, length, contexts),
    close: () => memory.close(),
    ...change,
    capabilities: { ...memory.capabilities, ...change.capabilities },
  };
}

describe('a device by its capabilities', () => {
  it('has no zero, discard or flush without write', () => {
    for (const change of [{ write: undefined }, { capabilities: { write: false } }]) {
      expect(new Device(changed(change)).capabilities).toMatchObject({
        write: false,
        zero: false,
        fastZero: false,
        discard: false,
        flush: false,
      });
    }
  });

  it('has nothing that the driver has no method for', () => {
    const device = new Device(changed({ zero: undefined, discard: undefined, extents: undefined }));
    expect(device.capabilities).toMatchObject({
      write: true,
      zero: false,
      fastZero: false,
      discard: false,
      contexts: [],
    });
  });

  it('has nothing that the driver leaves out', () => {
    const device = new Device({ ...changed(), capabilities: { exactStatus: true } });
    expect(device.capabilities).toEqual({
      write: false,
      zero: false,
      fastZero: false,
      discard: false,
      flush: false,
      contexts: [],
      contextsTogether: false,
      exactStatus: true,
      multiConnection: false,
      knownZero: false,
    });
  });

  it('asks a driver for each capability, and takes undefined for what is left out', () => {
    class Passed {
      contexts = undefined;
      write = undefined;
      get exactStatus() {
        return true;
      }
    }
    const device = new Device({ ...changed(), capabilities: new Passed() });
    const { write, contexts, exactStatus } = device.capabilities;
    expect({ write, contexts, exactStatus }).toEqual({
      write: false,
      contexts: [],
      exactStatus: true,
    });
  });

  it('refuses to change what its description calls read-only', async () => {
    const device = new Device(new NullDriver({ driver: 'null', 'read-only': true }));
    expect(device.capabilities.write).toBe(false);
    const unsupported = { code: 'ERR_DEVICE_UNSUPPORTED', device: 'null:' };
    await expect(device.write(0, new Uint8Array(1))).rejects.toMatchObject(unsupported);
    await expect(device.zero(0, 1)).rejects.toMatchObject(unsupported);
    await expect(device.discard(0, 1)).rejects.toMatchObject(unsupported);
    await expect(device.flush()).resolves.toBeUndefined();
  });

  it('forgets that it is zero when it is written, but not when it is zeroed', async () => {
    const device = new Device(changed(), { knownZero: true });
    await device.zero(0, 10);
    await device.write(0, new Uint8Array(0));
    expect(device.capabilities.knownZero).toBe(true);
    await device.write(0, new Uint8Array(1));
    expect(device.capabilities.knownZero).toBe(false);
  });

  it('refuses a driver whose limits make no sense', () => {
    const { limits } = changed();
    const broken = [
      { minimum: 3 },
      { minimum: 0 },
      { preferred: 5000 },
      { minimum: 4096, maximum: 4095 },
    ];
    for (const change of broken) {
      const driver = changed({ limits: { ...limits, ...change } });
      expect(() => new Device(driver), JSON.stringify(change)).toThrow(/limits/);
    }
    expect(() => new Device(changed({ size: 2 ** 53 }))).toThrow(/size/);
  });
});

describe('zero', () => {
  it('writes zeroes where the driver cannot zero', async () => {
    const device = new Device(changed({ zero: undefined }));
    await device.write(0, new Uint8Array(SIZE).fill(1));
    await device.zero(5, SIZE - 10);
    const bytes = new Uint8Array(SIZE);
    await device.read(0, bytes);
    expect(bytes.indexOf(0)).toBe(5);
    expect(bytes.lastIndexOf(0)).toBe(SIZE - 6);
    expect(bytes.subarray(5, SIZE - 5).every((byte) => byte === 0)).toBe(true);
  });

  it('writes zeroes through a device below, which takes with a write only what a write may say', async () => {
    const said: object[] = [];
    const below = new Device(
      changed({
        zero: undefined,
        write: async (_offset, _source, options) => void said.push(options),
      }),
    );
    const device = new Device(passThrough(below, (_request, pass) => pass()));
    await device.zero(0, 10, { unmap: true, fua: true });
    await device.zero(0, 10, { unmap: true, fast: false });
    expect(said).toEqual([{ fua: true }, {}]);
  });

  it('writes zeroes where the driver finds out late that it cannot zero, unless it must be fast', async () => {
    const refusal = new LacunaError('ERR_DEVICE_UNSUPPORTED', 'not here');
    const device = new Device(changed({ zero: () => Promise.reject(refusal) }));
    await device.write(0, Uint8Array.of(1, 2, 3));
    await expect(device.zero(1, 1, { fast: true })).rejects.toBe(refusal);
    await device.zero(1, 1);
    const bytes = new Uint8Array(3);
    await device.read(0, bytes);
    expect([...bytes]).toEqual([1, 0, 3]);
  });

  it('does not hide other errors behind written zeroes', async () => {
    const full = new LacunaError('ERR_DEVICE_IO', 'full', { errno: 'ENOSPC' });
    const device = new Device(changed({ zero: () => Promise.reject(full) }));
    await expect(device.zero(0, 1)).rejects.toBe(full);
  });

  it('refuses a fast zero where the driver cannot tell', async () => {
    const device = new Device(changed({ capabilities: { fastZero: false } }));
    await expect(device.zero(0, 1, { fast: true })).rejects.toMatchObject({
      code: 'ERR_DEVICE_UNSUPPORTED',
    });
  });
});

describe('extents', () => {
  const answer = (list: ExtentList) => new Device(changed({ extents: async () => [list] }));

  it('clips what the driver says behind the range', async () => {
    const [list] = await answer(ExtentList.of(0, SIZE, Status.data)).extents(0, 10);
    expect([...list]).toEqual([{ offset: 0, length: 10, flags: Status.data }]);
  });

  it('asks on when the answer ends early, and someExtents does not', async () => {
    const asked: number[] = [];
    const device = new Device(
      changed({
        extents: async (offset) => {
          asked.push(offset);
          return [ExtentList.of(offset, 300_000, offset % 2 === 0 ? Status.data : Status.zero)];
        },
      }),
    );
    const [list] = await device.extents(1, SIZE - 1);
    expect(list.end).toBe(SIZE);
    expect(asked).toEqual([1, 300_001, 600_001, 900_001]);
    const [some] = await device.someExtents(1, SIZE - 1);
    expect(some.end).toBe(300_001);
  });

  it('puts together contexts whose answers end at different places', async () => {
    const device = new Device(
      changed({
        capabilities: { contexts: ['base:allocation', DIRTY] },
        extents: async (offset, _length, contexts) =>
          contexts.map((context) =>
            context === DIRTY
              ? ExtentList.of(offset, 1000, (offset / 1000) % 2)
              : ExtentList.of(offset, 400_000, Status.data),
          ),
      }),
    );
    const contexts = [DIRTY, 'base:allocation'];
    const [dirty, allocation] = await device.extents(0, 10_000, { contexts });
    expect(dirty.count).toBe(10);
    expect([...allocation]).toEqual([{ offset: 0, length: 10_000, flags: Status.data }]);
  });

  it('calls everything data where the driver knows no allocation', async () => {
    const device = new Device(changed({ extents: undefined }));
    expect([...(await device.extents(7, 100))[0]]).toEqual([
      { offset: 7, length: 100, flags: Status.data },
    ]);
  });

  it('asks the driver for the contexts it has, and answers allocation itself', async () => {
    const device = new Device(
      changed({
        capabilities: { contexts: [DIRTY] },
        extents: async (offset, length, contexts) => {
          expect(contexts).toEqual([DIRTY]);
          return [ExtentList.of(offset, length, 1)];
        },
      }),
    );
    const contexts = ['base:allocation', DIRTY];
    const lists = await device.extents(0, 10, { contexts });
    expect(lists.map((list) => list.flagsAt(0))).toEqual([Status.data, 1]);
  });

  it('names the known contexts when it refuses an unknown one', async () => {
    const device = new Device(changed());
    await expect(device.extents(0, 1, { contexts: [DIRTY] })).rejects.toMatchObject({
      code: 'ERR_CONTEXT_UNKNOWN',
      message: expect.stringContaining('it has: base:allocation'),
    });
  });

  it.each([
    ['is empty', new ExtentList(0)],
    ['begins too late', ExtentList.of(1, 10, Status.zero)],
  ])('refuses an answer that %s', async (_what, list) => {
    await expect(answer(list).extents(0, 10)).rejects.toMatchObject({ code: 'ERR_DEVICE_IO' });
  });

  it('refuses an answer about fewer contexts than were asked', async () => {
    const device = new Device(changed({ extents: async () => [] }));
    await expect(device.extents(0, 10)).rejects.toMatchObject({ code: 'ERR_DEVICE_IO' });
  });
});

describe('close', () => {
  it('waits for what is in flight, then closes the driver once', async () => {
    const order: string[] = [];
    let finish = () => {};
    const device = new Device(
      changed({
        read: () =>
          new Promise((resolve) => {
            finish = resolve;
          }),
        close: async () => {
          order.push('closed');
        },
      }),
    );
    const read = device.read(0, new Uint8Array(1)).then(() => order.push('read'));
    const closing = [device.close(), device.close()];
    await new Promise(setImmediate);
    expect(order).toEqual([]);
    finish();
    await Promise.all([read, ...closing]);
    expect(order.sort()).toEqual(['closed', 'read']);
  });

  it('ends a request of many pieces after the one in flight', async () => {
    const memory = new MemoryDriver({ size: SIZE });
    let pieces = 0;
    const device = new Device(
      changed({
        limits: { ...memory.limits, maximum: 4096 },
        write: async () => {
          pieces++;
          await new Promise(setImmediate);
        },
      }),
    );
    const write = device.write(0, new Uint8Array(SIZE));
    const closing = device.close();
    await expect(write).rejects.toMatchObject({ code: 'ERR_DEVICE_CLOSED' });
    await closing;
    expect(pieces).toBe(1);
  });

  it('is done at the end of an await using block', async () => {
    const device = new Device(changed());
    await device[Symbol.asyncDispose]();
    await expect(device.flush()).rejects.toMatchObject({ code: 'ERR_DEVICE_CLOSED' });
  });
});

describe('an abort', () => {
  it('takes effect before the next piece', async () => {
    const abort = new AbortController();
    const memory = new MemoryDriver({ size: SIZE });
    const pieces: number[] = [];
    const device = new Device(
      changed({
        limits: { ...memory.limits, maximum: 4096 },
        read: async (offset) => {
          pieces.push(offset);
          if (pieces.length === 3) abort.abort();
        },
      }),
    );
    const read = device.read(0, new Uint8Array(SIZE), { signal: abort.signal });
    await expect(read).rejects.toMatchObject({ code: 'ERR_ABORTED', name: 'AbortError' });
    expect(pieces).toEqual([0, 4096, 8192]);
  });
});
