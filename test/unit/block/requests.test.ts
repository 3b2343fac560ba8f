import { beforeEach, describe, expect, it } from 'vitest';
import { Device, type Limits, MemoryDriver } from '#dist/block/index.js';
import { LacunaError } from '#dist/errors/index.js';
import { type Seen, strictDriver } from '../../support/strict-driver.js';

const LIMITS: Partial<Limits> = {
  minimum: 4096,
  preferred: 4096,
  maximum: 65_536,
  maximumZero: 131_072,
};
const SIZE = 1_000_000;

let log: Seen[];

function open(limits = LIMITS): Device {
  log = [];
  return new Device(strictDriver(new MemoryDriver({ size: SIZE }), limits, log));
}

function requests(): string[] {
  return log.splice(0).map(({ kind, offset, length }) => `${kind} ${offset}+${length}`);
}

let device: Device;

beforeEach(() => {
  device = open();
});

it('a device passes an aligned request on as it is, buffer included', async () => {
  const target = new Uint8Array(8192);
  let given: Uint8Array | undefined;
  const driver = strictDriver(new MemoryDriver({ size: SIZE }), LIMITS);
  driver.read = async (_offset, buffer) => {
    given = buffer;
  };
  await new Device(driver).read(4096, target);
  expect(given).toBe(target);
});

it('a device splits what is longer than the driver takes', async () => {
  await device.read(0, new Uint8Array(150_000 - (150_000 % 4096)));
  expect(requests()).toEqual(['read 0+65536', 'read 65536+65536', 'read 131072+16384']);
  await device.write(8192, new Uint8Array(69_632));
  expect(requests()).toEqual(['write 8192+65536', 'write 73728+4096']);
  await device.zero(0, 262_144);
  expect(requests()).toEqual(['zero 0+131072', 'zero 131072+131072']);
});

it('a device reads a small unaligned range in one request', async () => {
  await device.read(4095, new Uint8Array(2));
  expect(requests()).toEqual(['read 0+8192']);
});

it('a device reads a long unaligned range straight into its target, but for both ends', async () => {
  await device.read(4095, new Uint8Array(70_000));
  expect(requests()).toEqual([
    'read 0+4096',
    'read 4096+65536',
    'read 69632+4096',
    'read 73728+4096',
  ]);
});

it('a device reads only the blocks at both ends of a write first, to change a part of them', async () => {
  await device.write(4000, new Uint8Array(8392));
  expect(requests()).toEqual([
    'read 0+4096',
    'write 0+4096',
    'write 4096+8192',
    'read 12288+4096',
    'write 12288+4096',
  ]);
});

it('a device changes one block once when a write begins and ends inside it', async () => {
  await device.write(5000, new Uint8Array(10));
  expect(requests()).toEqual(['read 4096+4096', 'write 4096+4096']);
});

it('a device zeroes whole blocks first and the parts of blocks last', async () => {
  await device.zero(4000, 8392);
  expect(requests()).toEqual([
    'zero 4096+8192',
    'read 0+4096',
    'write 0+4096',
    'read 12288+4096',
    'write 12288+4096',
  ]);
});

it('a device leaves zero what was zeroed before a later piece of a fast zero was refused', async () => {
  const driver = strictDriver(new MemoryDriver({ size: SIZE }), LIMITS);
  const zero = driver.zero!;
  driver.zero = async (offset, length, options) => {
    if (offset >= 131_072) throw new LacunaError('ERR_DEVICE_UNSUPPORTED', 'no fast zero here');
    await zero(offset, length, options);
  };
  const refusing = new Device(driver);
  await refusing.write(0, new Uint8Array(262_144).fill(1));
  const zeroing = refusing.zero(1, 262_143, { fast: true });
  await expect(zeroing).rejects.toMatchObject({ code: 'ERR_DEVICE_UNSUPPORTED' });
  const bytes = new Uint8Array(262_144);
  await refusing.read(0, bytes);
  // Whole blocks of the first piece, and neither the part of a block before them nor the second piece.
  const end = bytes.indexOf(1, 4096);
  expect(bytes.subarray(0, 4096).every((byte) => byte === 1)).toBe(true);
  expect(end).toBe(4096 + LIMITS.maximumZero!);
  expect(bytes.subarray(end).every((byte) => byte === 1)).toBe(true);
});

it('a device discards whole blocks only', async () => {
  await device.discard(4000, 8392);
  expect(requests()).toEqual(['discard 4096+8192']);
  await device.discard(1, 4000);
  expect(requests()).toEqual([]);
});

it('a device takes its end for the end of its last block', async () => {
  const end = SIZE - (SIZE % 4096);
  await device.write(end, new Uint8Array(SIZE - end));
  expect(requests()).toEqual([`write ${end}+${SIZE - end}`]);
  await device.write(SIZE - 1, new Uint8Array(1));
  expect(requests()).toEqual([`read ${end}+${SIZE - end}`, `write ${end}+${SIZE - end}`]);
  await device.zero(end - 1, SIZE - end + 1);
  expect(requests()[0]).toBe(`zero ${end}+${SIZE - end}`);
});

it('a device makes whole writes wait for a change of the same block, and only for that', async () => {
  await Promise.all([
    device.write(10, new Uint8Array(10)),
    device.write(0, new Uint8Array(4096)),
    device.write(4096, new Uint8Array(4096)),
  ]);
  expect(requests()).toEqual(['read 0+4096', 'write 4096+4096', 'write 0+4096', 'write 0+4096']);
});

describe('a change of a part of a block that is given up', () => {
  /** A device whose first write or read is carried out when the test says so, and hears of no signal. */
  function slow(kind: 'read' | 'write') {
    const memory = new MemoryDriver({ size: SIZE });
    const driver = strictDriver(memory, LIMITS);
    let begin = () => {};
    let goOn = () => {};
    const begun = new Promise<void>((resolve) => {
      begin = resolve;
    });
    const gate = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    let isFirst = true;
    const signals: (AbortSignal | undefined)[] = [];
    const wait = async (signal: AbortSignal | undefined) => {
      signals.push(signal);
      if (!isFirst) return;
      isFirst = false;
      begin();
      await gate;
    };
    const { read, write } = driver;
    if (kind === 'read') {
      driver.read = async (offset, target, signal) => {
        await wait(signal);
        await read.call(driver, offset, target);
      };
    } else {
      driver.write = async (offset, source, options) => {
        await wait(options.signal);
        await write!.call(driver, offset, source, options);
      };
    }
    return { device: new Device(driver), memory, begun, goOn, signals };
  }

  const ABORTED = { code: 'ERR_ABORTED' };
  const byteAt = async (memory: MemoryDriver, offset: number) => {
    const byte = new Uint8Array(1);
    await memory.read(offset, byte);
    return byte[0];
  };

  it('cannot undo what its neighbour was told is done', async () => {
    const { device, memory, begun, goOn, signals } = slow('write');
    const abort = new AbortController();
    const first = device.write(0, new Uint8Array(10).fill(1), { signal: abort.signal });
    await begun;
    abort.abort();
    await expect(first).rejects.toMatchObject(ABORTED);
    expect(signals.some((signal) => signal?.aborted)).toBe(false);
    const second = device.write(10, new Uint8Array(10).fill(2));
    await new Promise((resolve) => setTimeout(resolve, 20));
    goOn();
    await second;
    expect([await byteAt(memory, 9), await byteAt(memory, 10)]).toEqual([1, 2]);
    await device.close();
  });

  it('takes no bytes that belong to their owner again', async () => {
    const { device, memory, begun, goOn } = slow('read');
    const abort = new AbortController();
    const source = new Uint8Array(10).fill(1);
    const first = device.write(0, source, { signal: abort.signal });
    await begun;
    abort.abort();
    await expect(first).rejects.toMatchObject(ABORTED);
    source.fill(3);
    goOn();
    await device.write(10, new Uint8Array(10).fill(2));
    expect([await byteAt(memory, 9), await byteAt(memory, 10)]).toEqual([0, 2]);
  });

  it('does not keep others from giving up too', async () => {
    const { device, begun, goOn } = slow('write');
    const first = device.write(0, new Uint8Array(10).fill(1));
    await begun;
    const abort = new AbortController();
    const others = [
      device.write(10, new Uint8Array(10).fill(2), { signal: abort.signal }),
      device.write(0, new Uint8Array(4096).fill(3), { signal: abort.signal }),
    ];
    abort.abort();
    for (const other of others) await expect(other).rejects.toMatchObject(ABORTED);
    goOn();
    await first;
  });

  it('is refused alone when it was given up during the whole blocks before it', async () => {
    const driver = strictDriver(new MemoryDriver({ size: SIZE }), LIMITS);
    const abort = new AbortController();
    const { zero } = driver;
    driver.zero = async (...request) => {
      await zero!.apply(driver, request);
      abort.abort();
    };
    const unhandled: unknown[] = [];
    const note = (error: unknown) => unhandled.push(error);
    process.on('unhandledRejection', note);
    await expect(new Device(driver).zero(0, 4196, { signal: abort.signal })).rejects.toMatchObject(
      ABORTED,
    );
    await new Promise((resolve) => setTimeout(resolve, 10));
    process.off('unhandledRejection', note);
    expect(unhandled).toEqual([]);
  });

  it('is over before the driver is closed, which ends its waiting', async () => {
    const { device, begun, goOn, signals } = slow('write');
    const abort = new AbortController();
    const first = device.write(0, new Uint8Array(10).fill(1), { signal: abort.signal });
    await begun;
    abort.abort();
    await expect(first).rejects.toMatchObject(ABORTED);
    let isClosed = false;
    const closing = device.close().then(() => {
      isClosed = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect([isClosed, signals[0]?.aborted]).toEqual([false, true]);
    goOn();
    await closing;
  });
});

describe('copyFrom', () => {
  /** A driver that copies, until it refuses; what it was asked is noted. */
  function copying(answers: boolean[]) {
    const pieces: number[][] = [];
    const driver = strictDriver(new MemoryDriver({ size: SIZE }), LIMITS);
    driver.copyFrom = async (_source, { sourceOffset, targetOffset, length }) => {
      pieces.push([sourceOffset, targetOffset, length]);
      return answers.shift() ?? true;
    };
    return { device: new Device(driver), pieces };
  }

  it('copies in pieces, each to its own place', async () => {
    const { device, pieces } = copying([]);
    const range = { sourceOffset: 10, targetOffset: 4096, length: 135_168 };
    expect(await device.copyFrom(open(), range)).toBe(true);
    expect(pieces).toEqual([
      [10, 4096, 65_536],
      [65_546, 69_632, 65_536],
      [131_082, 135_168, 4096],
    ]);
  });

  it('stops asking when the driver has refused, and never asks for parts of blocks', async () => {
    const { device, pieces } = copying([false]);
    const range = { sourceOffset: 0, targetOffset: 0, length: 135_168 };
    expect(await device.copyFrom(open(), range)).toBe(false);
    expect(pieces.length).toBe(1);
    expect(await device.copyFrom(open(), { ...range, targetOffset: 1 })).toBe(false);
    expect(pieces.length).toBe(1);
  });
});

it('a device asks for the status of whole blocks and answers for the bytes', async () => {
  const driver = strictDriver(new MemoryDriver({ size: SIZE }), LIMITS);
  const asked: number[][] = [];
  const { extents } = driver;
  driver.extents = (offset, length, contexts) => {
    asked.push([offset, length]);
    return extents!(offset, length, contexts);
  };
  const [list] = await new Device(driver).extents(5000, 10);
  expect(asked).toEqual([[4096, 4096]]);
  expect([...list]).toEqual([{ offset: 5000, length: 10, flags: 6 }]);
});

it('a device lets timers run while it works through the pieces of a long request', async () => {
  const driver = new MemoryDriver({ size: 2 ** 50 });
  const slow = strictDriver(driver, { maximumZero: 65_536 });
  slow.zero = async () => {
    const until = performance.now() + 1;
    while (performance.now() < until);
  };
  const abort = new AbortController();
  setTimeout(() => abort.abort(), 20);
  await expect(new Device(slow).zero(0, 2 ** 40, { signal: abort.signal })).rejects.toMatchObject({
    code: 'ERR_ABORTED',
  });
});
