import { describe, expect, it, vi } from 'vitest';
import { Bitmap } from '#dist/bitmap/index.js';
import { Control } from '#dist/copy/control/control.js';
import { LeftOut } from '#dist/copy/move/left-out.js';
import { type MoverOptions, move } from '#dist/copy/move/mover.js';
import { LacunaError } from '#dist/errors/index.js';
import { Arena } from '#dist/wasm/index.js';
import { contentOf, fakeDevice, firstDifference, pattern } from '../../support/fake-device.js';
import fc from '../../support/fast-check.js';

const PAGE = 4096;
const SIZE = 64 * PAGE;

const rule = { policy: 'report' as const, attempts: 0, backoffMs: 1 };

function setUp(plan: Bitmap, target = fakeDevice(SIZE)) {
  const control = Control.create(1);
  const source = fakeDevice(SIZE);
  const options: MoverOptions = {
    ends: { source, target },
    work: {
      plan,
      leftOut: new LeftOut(),
      leftOutMap: new Bitmap({ size: target.size, granularity: 512 }),
    },
    transfer: {
      pace: {
        requests: 4,
        mostRequests: 4,
        largestRequest: PAGE,
        mostBytes: SIZE,
        requestSize: PAGE,
      },
      policy: {
        detectZeroes: 'off',
        unmap: true,
        targetIsZero: false,
        rules: { source: rule, target: rule },
      },
      windowSize: 8 * PAGE,
      sequential: false,
      flush: true,
    },
    shared: {
      arena: Arena.default,
      control,
      counters: control.row(0),
      signal: new AbortController().signal,
    },
  };
  return { source, target, control, options };
}

const wholePlan = () => {
  const plan = new Bitmap({ size: SIZE, granularity: 512 });
  plan.setAll();
  return plan;
};

describe('move', () => {
  it('leaves in the plan exactly what did not reach the target, when a write fails', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: 63 }),
        fc.integer({ min: 1, max: 8 }),
        async (bad, requests) => {
          const memory = fakeDevice(SIZE);
          const target = fakeDevice(SIZE, {
            write: async (offset, bytes) => {
              await new Promise((resolve) => setImmediate(resolve));
              if (offset === bad * PAGE)
                throw new LacunaError('ERR_DEVICE_IO', 'full', { errno: 'ENOSPC' });
              await memory.write(offset, bytes);
            },
          });
          const plan = wholePlan();
          const { source, options } = setUp(plan, target);
          await source.write(0, pattern(SIZE));
          options.transfer.pace.requests = requests;
          const { error, flushed } = await move(options);
          expect(error).toMatchObject({ side: 'target', cause: { errno: 'ENOSPC' } });
          expect(flushed).toBe(true);

          const [want, got] = [await contentOf(source), await contentOf(memory)];
          for (let offset = 0; offset < SIZE; offset += PAGE) {
            const done =
              Buffer.compare(
                want.subarray(offset, offset + PAGE),
                got.subarray(offset, offset + PAGE),
              ) === 0;
            expect(plan.get(offset), `page ${offset / PAGE}`).toBe(!done);
          }
        },
      ),
      { numRuns: 60 },
    );
  });

  it.each([true, false])(
    'ends, with an exact plan, where there is no memory to note what is left out (in order: %s)',
    async (sequential) => {
      const plan = wholePlan();
      const { source, target, control, options } = setUp(plan);
      await source.write(0, pattern(SIZE));
      const { read } = source;
      source.read = async (...args) => {
        await new Promise((resolve) => setImmediate(resolve));
        if (args[0] === 5 * PAGE) throw new LacunaError('ERR_DEVICE_IO', 'bad', { errno: 'EIO' });
        await read.apply(source, args);
      };
      options.transfer.sequential = sequential;
      options.transfer.policy.rules = { source: { ...rule, policy: 'ignore' }, target: rule };
      const full = new LacunaError('ERR_ARENA_FULL', 'the arena is full');
      vi.spyOn(options.work.leftOutMap, 'set').mockImplementation(() => {
        throw full;
      });
      const { error } = await move(options);
      expect(error).toBe(full);
      expect(control.stopped).toBe(true);
      const [want, got] = [await contentOf(source), await contentOf(target)];
      for (let offset = 0; offset < SIZE; offset += PAGE) {
        const [from, to] = [want, got].map((all) => all.subarray(offset, offset + PAGE));
        if (offset !== 5 * PAGE) expect(plan.get(offset)).toBe(Buffer.compare(from, to) !== 0);
      }
      expect(plan.get(5 * PAGE)).toBe(true);
    },
  );

  it('ends, and has lost nothing of its plan, where there is no memory to note what the system has copied', async () => {
    const plan = wholePlan();
    const { target, options } = setUp(plan);
    target.copyFrom = async () => true;
    options.transfer.sequential = true;
    options.work.remains = wholePlan();
    const full = new LacunaError('ERR_ARENA_FULL', 'the arena is full');
    vi.spyOn(options.work.remains, 'reset').mockImplementation(() => {
      throw full;
    });
    expect((await move(options)).error).toBe(full);
    expect(plan.dirtyBytes).toBe(SIZE);
  });

  it('claims nothing more once it was told to stop', async () => {
    const plan = wholePlan();
    const { control, options } = setUp(plan);
    control.stop();
    await move(options);
    expect(plan.dirtyBytes).toBe(SIZE);
  });

  it('never makes more requests at once, nor larger ones, than it was told', async () => {
    let [inFlight, most, largest] = [0, 0, 0];
    const target = fakeDevice(SIZE, {
      write: async (_offset, bytes) => {
        most = Math.max(most, ++inFlight);
        largest = Math.max(largest, bytes.length);
        await new Promise((resolve) => setImmediate(resolve));
        inFlight--;
      },
    });
    const { options } = setUp(wholePlan(), target);
    options.transfer.pace.requests = 3;
    await move(options);
    expect(most).toBe(3);
    expect(largest).toBe(PAGE);
  });

  it('gives back every slot that it took from the arena', async () => {
    const arena = Arena.default;
    const { options } = setUp(wholePlan());
    const before = arena.usedBytes;
    await move(options);
    expect(arena.usedBytes).toBeLessThanOrEqual(before);
  });

  it('leaves out zeroes of a target that is zero, in steps of 4 KiB', async () => {
    const limits = { ...fakeDevice(SIZE).limits, zeroAlignment: PAGE };
    const { source, options, target } = setUp(wholePlan(), fakeDevice(SIZE, { limits }));
    await source.write(5 * PAGE + 100, pattern(10));
    await source.write(9 * PAGE, pattern(3 * PAGE));
    const { pace, policy } = options.transfer;
    pace.requestSize = 16 * PAGE;
    Object.assign(policy, { detectZeroes: 'on', targetIsZero: true });
    await move(options);
    const { counters } = options.shared;
    expect(counters.movedBytes).toBe(4 * PAGE);
    expect(counters.skippedBytes).toBe(SIZE - 4 * PAGE);
    expect(await firstDifference(target, source)).toBe(-1);
  });

  it('moves everything where the answers to all requests come at one moment', async () => {
    const size = 512 * PAGE;
    let waiting: (() => void)[] = [];
    // So many requests take as much longer, so that the first number of them is best.
    const together = () =>
      new Promise<void>((resolve) => {
        waiting.push(resolve);
        if (waiting.length > 1) return;
        setImmediate(() => {
          const all = waiting;
          waiting = [];
          setTimeout(() => all.map((answer) => answer()), all.length);
        });
      });
    const memory = fakeDevice(size);
    const target = fakeDevice(size, {
      write: async (offset, bytes) => {
        await memory.write(offset, bytes);
        await together();
      },
    });
    const plan = new Bitmap({ size, granularity: PAGE });
    plan.setAll();
    const { control, options } = setUp(plan, target);
    const source = fakeDevice(size);
    await source.write(0, pattern(size));
    options.ends.source = source;
    options.transfer.policy.detectZeroes = 'on';
    options.transfer.pace.mostRequests = 64;
    const { error } = await move(options);
    expect(error).toBeUndefined();
    expect(plan.count).toBe(0);
    expect(control.total().movedBytes).toBe(size);
    expect(await firstDifference(source, memory)).toBe(-1);
  });

  describe('from a source that answers late', () => {
    const size = 1536 * PAGE;
    const range = { requests: 4, mostRequests: 16, largestRequest: 8 * PAGE, mostBytes: 64 * PAGE };

    /** What the requests were like, and the slots of the arena while they were made. */
    async function moveFromAfar(arena: Arena, change = {}) {
      const far = new FarDevice();
      const memory = fakeDevice(size);
      await memory.write(0, pattern(size));
      const sizes = new Set<number>();
      let [inFlight, mostInFlight, mostUsed] = [0, 0, 0];
      const source = fakeDevice(size, {
        read: async (offset, bytes) => {
          sizes.add(bytes.length);
          inFlight += bytes.length;
          mostInFlight = Math.max(mostInFlight, inFlight);
          mostUsed = Math.max(mostUsed, arena.usedBytes);
          await far.answer();
          await memory.read(offset, bytes);
          inFlight -= bytes.length;
        },
      });
      const plan = new Bitmap({ size, granularity: PAGE });
      plan.setAll();
      const { options, target } = setUp(plan, fakeDevice(size));
      const usedBefore = arena.usedBytes;
      options.ends.source = source;
      options.shared.arena = arena;
      options.transfer.windowSize = 64 * PAGE;
      Object.assign(options.transfer.pace, range, change);
      try {
        expect(await move(options)).toEqual({ flushed: true });
      } finally {
        far.stop();
      }
      expect(plan.count).toBe(0);
      expect(await firstDifference(target, memory)).toBe(-1);
      expect(arena.usedBytes).toBeLessThanOrEqual(usedBefore);
      return { sizes, mostInFlight, mostUsed: mostUsed - usedBefore };
    }

    it('makes larger requests, in slots that hold no more than it may take together', async () => {
      const { sizes, mostInFlight, mostUsed } = await moveFromAfar(Arena.default);
      expect(Math.max(...sizes)).toBe(8 * PAGE);
      expect([...sizes][0]).toBe(PAGE);
      expect(mostInFlight).toBeLessThanOrEqual(64 * PAGE);
      // One is taken before another is given back.
      expect(mostUsed).toBeLessThanOrEqual(72 * PAGE);
    });

    it('keeps to the size that it was given', async () => {
      const { sizes } = await moveFromAfar(Arena.default, { largestRequest: PAGE });
      expect([...sizes]).toEqual([PAGE]);
    });

    it('stays with small slots where the arena has no room for larger ones', async () => {
      const arena = Arena.create({ maximumBytes: 256 * 1024 });
      const held = [];
      // Leaves room for the slots at first, in pieces that are too small for larger ones.
      try {
        for (;;) held.push(arena.allocate(PAGE));
      } catch {
        for (const slot of held.splice(-32)) slot.free();
      }
      const { sizes } = await moveFromAfar(arena, { requestSize: PAGE, largestRequest: 64 * PAGE });
      expect(Math.max(...sizes)).toBeLessThan(64 * PAGE);
    });
  });
});

/**
 * A device whose answers take 4 ms each, however many are under way, on a clock of its own: how busy the machine is must not
 * decide which load is faster.
 */
class FarDevice {
  #now = 0;
  readonly #waiting: { due: number; resolve: () => void }[] = [];
  readonly #clock = vi.spyOn(performance, 'now').mockImplementation(() => this.#now);
  readonly #timer = setInterval(() => this.#goOn(), 0);

  answer(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push({ due: this.#now + 4, resolve }));
  }

  /** When all that can be asked at a moment has been, the next one comes. */
  #goOn(): void {
    const next = this.#waiting[0]?.due;
    if (next === undefined) return;
    this.#now = next;
    while (this.#waiting[0]?.due === next) this.#waiting.shift()?.resolve();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#clock.mockRestore();
  }
}
