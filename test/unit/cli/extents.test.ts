import { setImmediate } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { kindsOf } from '#dist/cli/device/context-kinds.js';
import { type StatusRange, walkExtents } from '#dist/cli/device/extent-walk.js';
import { extentJson, tableHeading, tableLine } from '#dist/cli/view/extent-table.js';
import { ExtentList } from '#dist/extent/index.js';
import { rememberedBy } from '../../support/remembered.js';

/** A device that answers each query with one list from `answers`, whatever was asked. */
function scripted(size: number, answers: Record<number, ExtentList[]>) {
  return { size, someExtents: async (offset: number) => answers[offset] };
}

function list(offset: number, ...pairs: Array<[number, number]>): ExtentList {
  const made = new ExtentList(offset);
  for (const [length, flags] of pairs) made.push(length, flags);
  return made;
}

async function walk(device: Parameters<typeof walkExtents>[0], contexts = ['base:allocation']) {
  const ranges: StatusRange[] = [];
  for await (const batch of walkExtents(device, { contexts })) ranges.push(...batch);
  return ranges.map(({ offset, length, flags }) => [offset, length, ...flags]);
}

describe('walking the extents of a device', () => {
  test('asks on where an answer was short, and joins what is alike', async () => {
    const device = scripted(100, {
      0: [list(0, [10, 1], [20, 6])],
      30: [list(30, [30, 6])],
      60: [list(60, [40, 1])],
    });
    expect(await walk(device)).toEqual([
      [0, 10, 1],
      [10, 50, 6],
      [60, 40, 1],
    ]);
  });

  test('ends at the device, even where the answer goes on', async () => {
    expect(await walk(scripted(100, { 0: [list(0, [4096, 1])] }))).toEqual([[0, 100, 1]]);
  });

  test('cuts several contexts where any of them changes, as far as all of them tell', async () => {
    const device = scripted(100, {
      0: [list(0, [50, 1], [50, 6]), list(0, [20, 0], [50, 1])],
      70: [list(70, [30, 6]), list(70, [30, 0])],
    });
    expect(await walk(device, ['base:allocation', 'qemu:dirty-bitmap:b'])).toEqual([
      [0, 20, 1, 0],
      [20, 30, 1, 1],
      [50, 20, 6, 1],
      [70, 30, 6, 0],
    ]);
  });

  test('tells nothing of an empty device', async () => {
    expect(await walk(scripted(0, {}))).toEqual([]);
  });

  test('stops when it is told to', async () => {
    const signal = AbortSignal.abort(new Error('SIGINT'));
    const device = scripted(100, { 0: [list(0, [100, 1])] });
    const walking = walkExtents(device, { contexts: ['base:allocation'], signal });
    await expect(walking.next()).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });

  test('leaves nothing behind on a signal that outlives it', async () => {
    const { signal } = new AbortController();
    const device = scripted(100, { 0: [list(0, [100, 1])] });
    for await (const _ of walkExtents(device, { contexts: ['base:allocation'], signal }));
    expect(rememberedBy(signal)).toBe(0);
  });

  test('hands out an answer of many extents in small batches, none lost or cut', async () => {
    const made = new ExtentList(0);
    for (let i = 0; i < 5000; i++) made.push(4096, i % 2 === 0 ? 1 : 6);
    const device = scripted(made.end, { 0: [made] });
    const sizes: number[] = [];
    for await (const batch of walkExtents(device, { contexts: ['base:allocation'] })) {
      sizes.push(batch.length);
    }
    expect(Math.max(...sizes)).toBeLessThanOrEqual(1024);
    expect(await walk(device)).toEqual([...made].map((e) => [e.offset, e.length, e.flags]));
  });

  test('asks for the next answer, and no more than that, while one is looked at', async () => {
    const asked: number[] = [];
    const device = stepwise(asked);
    const walking = walkExtents(device, { contexts: ['base:allocation'] });
    await walking.next();
    expect(asked).toEqual([0, 10]);
    await walking.next();
    expect(asked).toEqual([0, 10, 20]);
    await walking.return(undefined);
  });

  test('tells an error when its turn comes, after what came before it', async () => {
    const device = stepwise([], { failAt: 20 });
    const walking = walkExtents(device, { contexts: ['base:allocation'] });
    const seen: number[] = [];
    const walkAll = async () => {
      for await (const ranges of walking) {
        seen.push(...ranges.map(({ offset }) => offset));
        await setImmediate();
      }
    };
    await expect(walkAll()).rejects.toThrow('no status at 20');
    expect(seen).toEqual([0, 5, 10]);
  });

  test('who stops early waits for no answer, and hears of no error', async () => {
    const unhandled: unknown[] = [];
    const listen = (reason: unknown) => void unhandled.push(reason);
    process.on('unhandledRejection', listen);
    let given: AbortSignal | undefined;
    const device = stepwise([], { hangAt: 10, onSignal: (signal) => (given = signal) });
    for await (const ranges of walkExtents(device, { contexts: ['base:allocation'] })) {
      expect(ranges).toHaveLength(1);
      break;
    }
    expect(given?.aborted).toBe(true);
    await setImmediate();
    process.off('unhandledRejection', listen);
    expect(unhandled).toEqual([]);
  });
});

interface Trouble {
  readonly failAt?: number;
  /** This answer comes only as an error, and that when its signal fires. */
  readonly hangAt?: number;
  readonly onSignal?: (signal: AbortSignal | undefined) => void;
}

/** A device of 100 bytes that answers with two extents at a time. */
function stepwise(asked: number[], { failAt, hangAt, onSignal }: Trouble = {}) {
  const someExtents = (offset: number, _length: number, { signal }: { signal?: AbortSignal }) => {
    asked.push(offset);
    if (offset === failAt) return Promise.reject(new Error(`no status at ${offset}`));
    if (offset !== hangAt) return Promise.resolve([list(offset, [5, 1], [5, 6])]);
    onSignal?.(signal);
    return new Promise<never>((_, reject) => {
      signal?.addEventListener('abort', () => reject(new Error('aborted')));
    });
  };
  return { size: 100, someExtents } as Parameters<typeof walkExtents>[0];
}

describe('extents as text', () => {
  const allocation = kindsOf('base:allocation');
  const dirty = kindsOf('qemu:dirty-bitmap:b');

  test.each([
    [1, { data: true, zero: false, hole: false }],
    [2, { data: false, zero: true, hole: false }],
    [6, { data: false, zero: true, hole: true }],
    [4, { data: true, zero: false, hole: true }],
    [0, { data: true, zero: false, hole: false }],
  ])('allocation flags %d as JSON', (flags, fields) => {
    const json = extentJson({ offset: 0, length: 512, flags: [flags] }, [allocation]);
    expect(JSON.parse(json)).toEqual({ start: 0, length: 512, ...fields });
  });

  test('several contexts keep their fields apart', () => {
    const json = extentJson({ offset: 0, length: 512, flags: [1, 1] }, [allocation, dirty]);
    expect(JSON.parse(json).contexts).toEqual({
      'base:allocation': { data: true, zero: false, hole: false },
      'qemu:dirty-bitmap:b': { dirty: true },
    });
  });

  test('a line of the table stands under its heading', () => {
    const line = tableLine({ offset: 2 ** 52, length: 65536, flags: [6, 1] }, [allocation, dirty]);
    expect(line).toBe('4503599627370496             65536     64 KiB  hole, dirty');
    expect(tableHeading().indexOf('status')).toBe(line.indexOf('hole'));
  });
});
