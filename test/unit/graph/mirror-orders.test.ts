/**
 * Every order in which writes, a round of the job and switches of the mode may begin and end. At the end of each, what differs between the
 * disk and its target is dirty, and after a last round nothing differs.
 */
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { Bitmap } from '#dist/bitmap/index.js';
import type { CopyMode } from '#dist/block/index.js';
import { MirroredDisk, type MirrorSettings } from '#dist/graph/filters/mirrored-disk.js';
import { Rounds } from '#dist/graph/jobs/rounds/rounds.js';
import { everyOrder } from '../../support/every-order.js';
import { HeldDisk, microtasks } from '../../support/held-disk.js';

const G = 512;
const SIZE = 2 * G;

/** A disk of two granules, a byte for each of them, that is mirrored. */
class Setup {
  readonly disk: HeldDisk;
  readonly target: HeldDisk;
  readonly copy: MirroredDisk;
  readonly rounds: Rounds;
  /** Questions for the status of the disk that wait for the test. */
  readonly asked: (() => void)[] = [];
  #isFree = false;

  constructor(disk: [number, number], target: [number, number], settings: Partial<MirrorSettings>) {
    this.disk = new HeldDisk(cells(disk), 'disk');
    this.target = new HeldDisk(cells(target), 'target');
    this.copy = new MirroredDisk(
      { disk: this.disk.device, target: this.target.device },
      {
        ...{ mode: 'background', granularity: G, targetIsZero: false },
        ...{ detectZeroes: 'off', limitMs: 0 },
        ...settings,
      },
    );
    this.copy.begin();
    const control = {
      next: async () => {},
      waitAbout: async () => {},
      throwIfEnding: () => {},
    };
    this.rounds = new Rounds({
      ...{ copy: this.copy, size: SIZE, control: control as never },
      policies: { onSourceError: 'stop', onTargetError: 'stop' },
      pass: (work) => work(),
      plan: (dirty) => this.plan(dirty),
    });
  }

  /** What of the dirty granules reads as zero when the question is answered. */
  async plan(dirty: Bitmap) {
    const granules = [0, G].filter((at) => dirty.get(at));
    if (!this.#isFree) await new Promise<void>((resolve) => this.asked.push(resolve));
    const data = new Bitmap({ size: SIZE, granularity: G });
    const zero = new Bitmap({ size: SIZE, granularity: G });
    for (const at of granules) {
      const isZero = this.disk.bytes.subarray(at, at + G).every((byte) => byte === 0);
      (isZero ? zero : data).set(at, G);
    }
    return { data, zero };
  }

  write(offset: number, length: number, value: number) {
    const source = new Uint8Array(length).fill(value);
    const { device: disk } = this.disk;
    const { device: target } = this.target;
    return this.copy.change({
      offset,
      length,
      onDisk: () => disk.write(offset, source),
      onTarget: () => target.write(offset, source),
    });
  }

  zero(offset: number, length: number) {
    const { device: disk } = this.disk;
    const { device: target } = this.target;
    return this.copy.change({
      offset,
      length,
      onDisk: () => disk.zero(offset, length),
      onTarget: () => target.zero(offset, length),
    });
  }

  discard(offset: number, length: number) {
    return this.copy.change({
      offset,
      length,
      onDisk: () => this.disk.device.discard(offset, length),
    });
  }

  /** A first round over everything. */
  first() {
    return this.rounds.first(async () => {
      const all = new Bitmap({ size: SIZE, granularity: G });
      all.setAll();
      const planned = this.plan(all);
      all.free();
      return planned;
    });
  }

  /** Answers everything at once from now on. */
  free(): void {
    this.#isFree = true;
    this.disk.isFree = true;
    this.target.isFree = true;
  }

  /** Throws where something differs that is not dirty, or after the last round. */
  async end(): Promise<void> {
    const dirty = this.copy.copyDirty();
    const missed = [...this.disk.bytes.keys()].filter(
      (at) => this.disk.bytes[at] !== this.target.bytes[at] && !dirty.get(at),
    );
    dirty.free();
    if (missed.length > 0 && !this.target.isLost)
      throw new Error(`${missed.length} bytes at ${missed[0]} are not dirty`);
    this.free();
    // A target that has forgotten something says so at the first flush.
    await this.rounds.last(() => false).catch(() => this.rounds.last(() => false));
    if (Buffer.compare(this.disk.bytes, this.target.bytes) !== 0)
      throw new Error('target is stale');
    this.rounds.free();
    await this.copy.close();
  }
}

function cells([first, second]: [number, number]): Uint8Array {
  return new Uint8Array(SIZE).fill(first, 0, G).fill(second, G);
}

interface Play {
  readonly disk: [number, number];
  readonly target?: [number, number];
  readonly settings?: Partial<MirrorSettings>;
  /** What begins, at any time. Rounds are made one after another. */
  readonly begin: ((setup: Setup) => unknown)[];
  /** So many requests may fail, having been carried out or not. */
  readonly failures?: number;
}

/** Plays all orders; returns how many there were. */
function playAll({ disk, target = [9, 9], settings = {}, begin, failures = 0 }: Play) {
  return everyOrder(async (choose) => {
    const setup = new Setup(disk, target, settings);
    const waiting = begin.map((each) => () => each(setup));
    const begun: Promise<unknown>[] = [];
    let mayFail = failures;
    for (;;) {
      await microtasks();
      const held = [...setup.disk.held, ...setup.target.held];
      const count = waiting.length + held.length + setup.asked.length;
      if (count === 0) break;
      const chosen = choose(count);
      if (chosen < waiting.length) {
        const one = waiting.splice(chosen, 1)[0]();
        if (one instanceof Promise) begun.push(one.catch(() => {}));
        continue;
      }
      const request = held[chosen - waiting.length];
      if (request === undefined) {
        setup.asked.splice(chosen - waiting.length - held.length, 1)[0]();
        continue;
      }
      const how = mayFail === 0 || request.what === 'flush' ? 0 : choose(3);
      if (how > 0) mayFail--;
      if (how === 0) request.release();
      else request.fail(how === 1);
    }
    await Promise.all(begun);
    await setup.end();
  });
}

const round = (setup: Setup) => setup.first();
const switched = (setup: Setup) => {
  setup.copy.mode = setup.copy.mode === 'background' ? 'write-blocking' : 'background';
};
const write = (offset: number, length: number, value: number) => (setup: Setup) =>
  setup.write(offset, length, value);

describe('in every order, what differs is dirty, and the last round leaves nothing:', () => {
  const modes = test.each<[CopyMode]>([['background'], ['write-blocking']]);

  modes('two writes, a round and a switch of the mode, from %s', async (mode) => {
    const orders = await playAll({
      ...{ disk: [3, 3], settings: { mode } },
      begin: [write(0, SIZE, 1), write(G, G, 2), round, switched],
    });
    expect(orders).toBeGreaterThan(1000);
  });

  modes('two writes to what reads as zero, and a round, in the mode %s', async (mode) => {
    const orders = await playAll({
      ...{ disk: [0, 3], settings: { mode } },
      begin: [write(0, 10, 1), (setup) => setup.zero(0, SIZE), round],
    });
    expect(orders).toBeGreaterThan(500);
  });

  modes(
    'two writes one after the other, a switch, and two rounds of a target that was zero, from %s',
    async (mode) => {
      for (const detectZeroes of ['off', 'on'] as const) {
        await playAll({
          ...{ disk: [0, 3], target: [0, 0] },
          settings: { mode, targetIsZero: true, detectZeroes },
          begin: [
            (setup) => setup.write(0, G, 1).then(() => setup.write(0, G, 0)),
            switched,
            (setup) => setup.first().then(() => setup.rounds.next()),
          ],
        });
      }
    },
  );

  modes(
    'a discard that disk and target understand in their own ways, in the mode %s',
    async (mode) => {
      for (const side of ['disk', 'target'] as const) {
        await playAll({
          ...{ disk: [3, 3], settings: { mode } },
          begin: [
            (setup) => {
              setup[side].ignoresDiscards = true;
              return setup.discard(0, G);
            },
            round,
            switched,
          ],
        });
      }
    },
  );

  modes(
    'a write that a side fails, having made it or not, and a round, in the mode %s',
    async (mode) => {
      const orders = await playAll({
        ...{ disk: [3, 3], settings: { mode }, failures: 1 },
        begin: [write(0, 10, 1), round],
      });
      expect(orders).toBeGreaterThan(50);
    },
  );

  modes('a write that a side fails, and a switch, from %s', async (mode) => {
    await playAll({
      ...{ disk: [3, 3], target: [3, 3], settings: { mode }, failures: 1 },
      begin: [write(0, 10, 1), switched],
    });
  });

  modes('a write, a round, a flush, and a target that forgets, in the mode %s', async (mode) => {
    const orders = await playAll({
      ...{ disk: [3, 3], settings: { mode } },
      begin: [
        write(0, 10, 1),
        round,
        (setup) => setup.copy.flush(),
        (setup) => setup.target.crash(),
      ],
    });
    expect(orders).toBeGreaterThan(1000);
  });

  test('two writes that may give up on the target, a round and a switch', async () => {
    vi.useFakeTimers();
    onTestFinished(() => void vi.useRealTimers());
    const orders = await playAll({
      ...{ disk: [3, 3], settings: { mode: 'write-blocking', limitMs: 10 } },
      begin: [write(0, G, 1), write(0, G, 2), round, () => void vi.advanceTimersByTime(10)],
    });
    expect(orders).toBeGreaterThan(1000);
  });
});
