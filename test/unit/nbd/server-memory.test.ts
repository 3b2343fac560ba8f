/** The memory that clients of a server share: bounded for all, a part of it certain for each. */

import { describe, expect, test } from 'vitest';
import { ExtentList } from '#dist/extent/index.js';
import { MemoryBudget, planBudget } from '#dist/nbd/server/limits/memory-budget.js';
import { Command } from '#dist/nbd/wire/constants.js';
import { counterCells, countersOf, removeThread } from '#dist/serve/shared-counters.js';
import { contentOf, fakeDevice, pattern } from '../../support/fake-device.js';
import fc from '../../support/fast-check.js';
import { concat } from '../../support/hostile-nbd-wire.js';
import {
  type Reply,
  replies,
  request,
  SIZE,
  served,
  settle,
  Transmission,
} from './server-harness.js';

const KiB = 1024;
const MiB = 1024 * KiB;
const DF = 4;
const FUA = 1;
const ERROR = 0x8001;

/** 16 clients at most, with 16 KiB each of their own and 768 KiB for all. */
const smallBudget = () => new MemoryBudget(planBudget(MiB, 16));

/** A budget whose common part another client holds. */
function taken(): MemoryBudget {
  const budget = smallBudget();
  expect(budget.open()!.take((768 + 16) * KiB)).toBe(true);
  return budget;
}

describe('the budget', () => {
  test('has a part of its own for each client, and one for all, of which each has a fair share', () => {
    const budget = smallBudget();
    const [one, other] = [budget.open()!, budget.open()!];
    expect(one.ownBytes).toBe(16 * KiB);
    expect(one.take((16 + 384 + 4) * KiB)).toBe(false);
    expect(one.take((16 + 384) * KiB)).toBe(true);
    expect(other.take((16 + 384) * KiB)).toBe(true);
    const third = budget.open()!;
    expect(third.take(20 * KiB)).toBe(false);
    expect(third.take(16 * KiB)).toBe(true);
    other.free((16 + 384) * KiB);
    expect(third.take(256 * KiB)).toBe(true);
  });

  test('is never exceeded, and has all back in the end', () => {
    const step = fc.record({ client: fc.nat(15), bytes: fc.nat(900 * KiB) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const budget = smallBudget();
        const clients = Array.from({ length: 16 }, () => ({ account: budget.open()!, held: [0] }));
        for (const { client, bytes } of steps) {
          const { account, held } = clients[client];
          if (account.take(bytes)) held.push(bytes);
          else for (const each of held.splice(0)) account.free(each);
          const sum = clients.flatMap((one) => one.held).reduce((a, b) => a + b, 0);
          expect(sum).toBeLessThanOrEqual(MiB);
        }
        for (const { account, held } of clients) {
          for (const each of held) account.free(each);
          account.close();
        }
        expect([budget.clients, budget.commonBytes]).toEqual([0, 0]);
      }),
    );
  });

  test('has a place for so many clients; one that left keeps it while its memory is in use', () => {
    const budget = smallBudget();
    const accounts = Array.from({ length: 16 }, () => budget.open()!);
    expect(budget.open()).toBeUndefined();
    accounts[0].take(1);
    accounts[0].close();
    expect(budget.open()).toBeUndefined();
    accounts[0].free(1);
    expect(budget.open()).toBeDefined();
  });

  test('counts what threads hold together, and forgets a thread that is no more', () => {
    const plan = planBudget(MiB, 16);
    const cells = counterCells(3);
    const [own, thread] = [0, 2].map((i) => new MemoryBudget(plan, countersOf(cells, i)));
    own.open()!.take(116 * KiB);
    thread.open()!.take(216 * KiB);
    expect([own.clients, own.commonBytes]).toEqual([2, 300 * KiB]);
    removeThread(cells, 2);
    expect([own.clients, own.commonBytes]).toEqual([1, 100 * KiB]);
  });

  test('refuses less than 64 KiB a client', () => {
    expect(() => planBudget(100 * 64 * KiB - 1, 100)).toThrow(RangeError);
    expect(() => planBudget(100 * 64 * KiB, 100)).not.toThrow();
  });
});

/** Offset and bytes of what a read was answered, and whether it ended well. */
function bytesOf(found: readonly Reply[]): Buffer {
  const bytes = Buffer.alloc(300_000);
  let end = 0;
  for (const { body } of found) {
    const offset = Number(body.readBigUInt64BE(0));
    bytes.set(body.subarray(8), offset - 1000);
    end = Math.max(end, offset - 1000 + body.length - 8);
  }
  return bytes.subarray(0, end);
}

describe('a request for which there is no memory', () => {
  const LENGTH = 200_000;
  const filled = async () => {
    const device = fakeDevice(SIZE);
    await device.write(0, pattern(SIZE));
    return device;
  };
  const open = async (entered = {}, device = fakeDevice(SIZE)) =>
    new Transmission({ export: served({ device }), ...entered }, undefined, 0, taken());
  const drained = async (transmission: Transmission) => {
    transmission.session.shutdown();
    await settle();
    transmission.session.closed();
    await settle();
    // The client that holds the common part is left.
    expect([transmission.budget.clients, transmission.budget.commonBytes]).toEqual([1, 768 * KiB]);
  };

  test.each([
    ['at once', [Number.POSITIVE_INFINITY]],
    ['byte by byte around the pieces', [16_383, 1, 1, 40]],
    ['in odd parts', [7000, 33_333]],
  ])('a write is written in pieces, however it comes: %s', async (_, sizes) => {
    const written: [number, number, boolean | undefined][] = [];
    const device = fakeDevice(SIZE, {
      write: async (offset, source, { fua }) => {
        written.push([offset, source.length, fua]);
        await memory.write(offset, source);
      },
    });
    const memory = fakeDevice(SIZE);
    const transmission = await open({}, device);
    const payload = pattern(LENGTH);
    const writes = concat(
      request(Command.write, { cookie: 1, offset: 1000, payload, flags: FUA }),
      request(Command.write, { cookie: 2, offset: 5, payload: pattern(100) }),
      request(Command.flush, { cookie: 3 }),
    );
    await transmission.say(writes, sizes);
    for (let i = 0; i < 60; i++) await settle();
    expect(replies(transmission.take()).map(({ code }) => code)).toEqual([0, 0, 0]);
    expect(written.slice(0, -1).every(([, length, fua]) => length <= 16 * KiB && fua)).toBe(true);
    const content = await contentOf(memory);
    expect(Buffer.compare(content.subarray(1000, 1000 + LENGTH), payload)).toBe(0);
    expect(Buffer.compare(content.subarray(5, 105), pattern(100))).toBe(0);
    await drained(transmission);
  });

  test('a write of which a piece fails is answered once, and the connection lives', async () => {
    const device = fakeDevice(SIZE, {
      write: async (offset) => {
        if (offset > 20_000) throw new Error('the disk is broken');
      },
    });
    const transmission = await open({}, device);
    const bad = request(Command.write, { cookie: 1, payload: pattern(LENGTH) });
    const good = request(Command.write, { cookie: 2, payload: pattern(100) });
    const found: Reply[] = [];
    await transmission.say(concat(bad, good));
    for (let i = 0; i < 20; i++) {
      await settle();
      found.push(...replies(transmission.take()));
    }
    expect(found.map(({ cookie, code }) => [cookie, code])).toEqual([
      [1, ERROR],
      [2, 0],
    ]);
    expect(transmission.deviceErrors).toHaveLength(1);
    await drained(transmission);
  });

  test('a read is answered in pieces, behind which the next one comes', async () => {
    const device = await filled();
    const transmission = await open({}, device);
    const read = (cookie: number) =>
      request(Command.read, { cookie, offset: 1000, length: LENGTH });
    const found: Reply[] = [];
    await transmission.say(concat(read(1), read(2)));
    for (let i = 0; i < 60; i++) {
      await settle();
      found.push(...replies(transmission.take()));
    }
    const expected = pattern(SIZE).subarray(1000, 1000 + LENGTH);
    for (const cookie of [1, 2]) {
      const own = found.filter((reply) => reply.cookie === cookie);
      expect(own.every(({ body }) => body.length <= 16 * KiB + 8)).toBe(true);
      expect(own.map(({ done }) => done).indexOf(true)).toBe(own.length - 1);
      expect(Buffer.compare(bytesOf(own), expected)).toBe(0);
    }
    expect(found.findIndex(({ cookie }) => cookie === 2)).toBe(found.length / 2);
    await drained(transmission);
  });

  test.each([
    ['that must come in one chunk', true, DF, 28],
    ['without chunks', false, 0, 16],
  ])('a read %s is sent in one answer', async (_, structured, flags, head) => {
    const device = await filled();
    const transmission = await open({ structured }, device);
    const fields = { offset: 1000, length: LENGTH };
    const reads = [1, 2].map((cookie) => request(Command.read, { ...fields, flags, cookie }));
    const parts: Uint8Array[] = [];
    await transmission.say(concat(...reads));
    for (let i = 0; i < 60; i++) {
      await settle();
      parts.push(transmission.take());
    }
    const answer = Buffer.from(concat(...parts));
    expect(answer.length).toBe(2 * (head + LENGTH));
    const expected = pattern(SIZE).subarray(1000, 1000 + LENGTH);
    for (const at of [head, 2 * head + LENGTH]) {
      expect(Buffer.compare(answer.subarray(at, at + LENGTH), expected)).toBe(0);
    }
    await drained(transmission);
  });

  test('a read that fails in the middle ends with an error, or where it cannot, with the connection', async () => {
    const failing = () =>
      fakeDevice(SIZE, {
        read: async (offset) => {
          if (offset > 20_000) throw new Error('the disk is broken');
        },
      });
    const read = request(Command.read, { cookie: 1, length: LENGTH });
    const chunked = await open({}, failing());
    await chunked.say(read);
    for (let i = 0; i < 5; i++) await settle();
    expect(replies(chunked.take()).at(-1)).toMatchObject({ code: ERROR, done: true });
    const simple = await open({ structured: false }, failing());
    await simple.say(read);
    for (let i = 0; i < 5; i++) await settle();
    expect(simple.failure).toMatchObject({ code: 'ERR_NBD_DISCONNECTED' });
    await drained(chunked);
  });

  test('reading ahead is done in pieces, and status is told in fewer extents', async () => {
    const asked: number[] = [];
    const device = fakeDevice(SIZE, {
      read: async (_, target) => void asked.push(target.length),
      extents: async (offset, length) => {
        const list = new ExtentList(offset);
        for (let i = 0; i < length / 16; i++) list.push(16, (i % 2) + 1);
        return [list];
      },
    });
    const transmission = await open({}, device);
    const cache = request(Command.cache, { cookie: 1, length: LENGTH });
    expect(replies(await transmission.ask(cache))).toMatchObject([{ cookie: 1, code: 0 }]);
    expect(Math.max(...asked)).toBe(16 * KiB);
    const status = request(Command.blockStatus, { cookie: 2, length: SIZE });
    const [{ body }] = replies(await transmission.ask(status));
    const count = (body.length - 4) / 8;
    expect(count).toBeGreaterThan(1000);
    expect(count * 8).toBeLessThanOrEqual(16 * KiB);
    await drained(transmission);
  });

  test('a client that leaves in the middle of a piece leaves nothing behind', async () => {
    let write: () => void = () => {};
    const device = fakeDevice(SIZE, {
      write: () =>
        new Promise<void>((resolve) => {
          write = resolve;
        }),
    });
    const transmission = await open({}, device);
    const bytes = request(Command.write, { payload: pattern(LENGTH) });
    await transmission.say(bytes.subarray(0, 20_000));
    transmission.session.closed();
    await settle();
    // The piece is being written still.
    expect(transmission.budget.clients).toBe(2);
    write();
    await settle();
    expect(transmission.budget.clients).toBe(1);
  });
});

test('what a status answer holds counts until it is sent', async () => {
  const device = fakeDevice(SIZE);
  const transmission = new Transmission({ export: served({ device }) });
  transmission.holds = true;
  await transmission.say(request(Command.blockStatus, { length: SIZE }));
  await settle();
  expect(transmission.budget.commonBytes).toBeGreaterThan(0);
  transmission.release();
  await settle();
  expect(transmission.budget.commonBytes).toBe(0);
});
