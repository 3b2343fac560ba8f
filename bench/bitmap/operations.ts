import type { Holder } from './contender.js';

/** An operation that is ready to run, again and again. */
export interface Prepared {
  /** The first one is what is measured; all are freed afterwards. */
  holders: Holder[];
  /** Brings the content back to what a run begins with. Not counted. */
  before?: () => void;
  /** Returns something that all contenders must agree on. */
  run(): unknown;
}

export interface Operation {
  name: string;
  /** Null when the contender cannot hold so many granules, or has no such operation. */
  prepare(make: () => Holder | null, granules: number, smoke: boolean): Prepared | null;
  /** QEMU's hbitmap, compiled natively, on another day: see the design. */
  hbitmapMs?: Record<string, number>;
}

/** Positions that a fixed seed scatters, the same for everybody. */
function scatter(granules: number, count: number, seed: number): Float64Array {
  let state = seed;
  return Float64Array.from({ length: count }, () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * granules);
  });
}

/** Leaves out who cannot look for clean positions. */
function clean(prepare: Operation['prepare']): Operation['prepare'] {
  return (make, granules, smoke) => {
    const holder = make();
    const cannot = holder === null || holder.findsNoClean === true;
    holder?.free();
    return cannot ? null : prepare(make, granules, smoke);
  };
}

type Content = 'empty' | 'scattered' | 'full' | 'alternating';

/** How many positions: 4 M of a terabyte and 1 M of a petabyte, as hbitmap was measured. */
function countFor(granules: number, smoke: boolean): number {
  if (smoke) return 1000;
  return granules > 2 ** 32 ? 1e6 : 4e6;
}

/** Alternating over all of a petabyte would be 2^34 bits in mixed leaves: the first part says as much. */
const MOST_ALTERNATING = 2 ** 24;

function fill(holder: Holder, content: Content, granules: number, smoke: boolean, seed = 1): void {
  if (content === 'full') holder.setAll();
  if (content === 'scattered') holder.setMany(scatter(granules, smoke ? 1000 : 1e6, seed));
  if (content === 'alternating') {
    const length = (smoke ? 2000 : Math.min(granules, MOST_ALTERNATING)) / 2;
    holder.setMany(Float64Array.from({ length }, (_, i) => i * 2));
  }
}

/** Runs on one holder with a content; a fresh one for each run when the run changes it. */
function on(
  content: Content,
  run: (holder: Holder, granules: number, smoke: boolean) => unknown,
): Operation['prepare'] {
  return (make, granules, smoke) => {
    const holder = make();
    if (holder === null) return null;
    fill(holder, content, granules, smoke);
    return { holders: [holder], run: () => run(holder, granules, smoke) };
  };
}

/** As `on`, over the positions that hbitmap was measured with. */
function each(
  begin: 'empty' | 'same',
  call: (holder: Holder, positions: Float64Array) => unknown,
): Operation['prepare'] {
  return (make, granules, smoke) => {
    const holder = make();
    if (holder === null) return null;
    const positions = scatter(granules, countFor(granules, smoke), 7);
    const before = () => {
      holder.resetAll();
      if (begin === 'same') holder.setMany(positions);
    };
    return { holders: [holder], before, run: () => call(holder, positions) };
  };
}

/** Merges `other` into a fresh copy of `content` each time. */
function merging(content: Content, other: Content): Operation['prepare'] {
  return (make, granules, smoke) => {
    const [target, source] = [make(), make()];
    if (target === null || source === null) return null;
    fill(source, other, granules, smoke, 2);
    const before = () => {
      target.resetAll();
      fill(target, content, granules, smoke);
    };
    return {
      holders: [target, source],
      before,
      run: () => target.merge(source),
    };
  };
}

function sum(positions: Float64Array, call: (position: number) => number): number {
  let total = 0;
  for (let i = 0; i < positions.length; i++) total += call(positions[i]);
  return total;
}

const CONTENTS: readonly Content[] = ['empty', 'scattered', 'alternating', 'full'];

export const OPERATIONS: readonly Operation[] = [
  {
    name: 'set, random single',
    prepare: each('empty', (holder, positions) => {
      for (let i = 0; i < positions.length; i++) holder.set(positions[i]);
    }),
    hbitmapMs: { '1 TiB': 91, '1 PiB': 3900 },
  },
  {
    name: 'setMany, the same',
    prepare: each('empty', (holder, positions) => holder.setMany(positions)),
    hbitmapMs: { '1 TiB': 91, '1 PiB': 3900 },
  },
  {
    name: 'reset, random single',
    prepare: each('same', (holder, positions) => {
      for (let i = 0; i < positions.length; i++) holder.reset(positions[i]);
    }),
    hbitmapMs: { '1 TiB': 53 },
  },
  {
    name: 'get',
    prepare: each('same', (holder, positions) =>
      sum(positions, (position) => Number(holder.get(position))),
    ),
    hbitmapMs: { '1 TiB': 9 },
  },
  {
    name: 'nextDirty',
    prepare: each('same', (holder, positions) =>
      sum(positions, (position) => holder.next(position, true)),
    ),
    hbitmapMs: { '1 TiB': 64 },
  },
  {
    name: 'nextZero',
    prepare: clean(
      each('same', (holder, positions) => sum(positions, (at) => holder.next(at, false))),
    ),
    hbitmapMs: { '1 TiB': 19 },
  },
  {
    name: 'iterate areas',
    prepare: each('same', (holder) => holder.runs()),
    hbitmapMs: { '1 TiB': 34, '1 PiB': 165 },
  },
  {
    name: 'nextZero, full',
    prepare: clean(on('full', (holder) => holder.next(0, false))),
    hbitmapMs: { '1 PiB': 94 },
  },
  ...CONTENTS.map(
    (content): Operation => ({
      name: `set all, ${content}`,
      prepare: merged(content, (holder) => holder.setAll()),
      ...(content === 'empty' ? { hbitmapMs: { '1 PiB': 192 } } : {}),
    }),
  ),
  ...CONTENTS.map(
    (content): Operation => ({
      name: `reset all, ${content}`,
      prepare: merged(content, (holder) => holder.resetAll()),
      ...(content === 'full' ? { hbitmapMs: { '1 PiB': 51 } } : {}),
    }),
  ),
  {
    name: 'merge scattered into empty',
    prepare: merging('empty', 'scattered'),
    hbitmapMs: { '1 PiB': 6200 },
  },
  { name: 'merge scattered into scattered', prepare: merging('scattered', 'scattered') },
  { name: 'merge empty into scattered', prepare: merging('scattered', 'empty') },
  { name: 'merge full into scattered', prepare: merging('scattered', 'full') },
  ...CONTENTS.map(
    (content): Operation => ({
      name: `snapshot, ${content}`,
      prepare: on(content, (holder) => holder.snapshot().free()),
    }),
  ),
  {
    name: 'claim everything, scattered',
    prepare: (make, granules, smoke) => {
      const holder = make();
      if (holder?.claimAll === undefined) {
        holder?.free();
        return null;
      }
      fill(holder, 'scattered', granules, smoke);
      return { holders: [holder], run: () => holder.claimAll?.() };
    },
  },
  {
    name: 'digest, scattered',
    prepare: (make, granules, smoke) => {
      // A petabyte has 2 GiB of bits to hash, whoever holds them.
      const holder = granules > 2 ** 32 ? null : make();
      if (holder?.digest === undefined) {
        holder?.free();
        return null;
      }
      fill(holder, 'scattered', granules, smoke);
      return { holders: [holder], run: () => holder.digest?.() };
    },
  },
];

/** Runs on a content that is made anew before each run. */
function merged(content: Content, run: (holder: Holder) => void): Operation['prepare'] {
  return (make, granules, smoke) => {
    const holder = make();
    if (holder === null) return null;
    const before = () => {
      holder.resetAll();
      fill(holder, content, granules, smoke);
    };
    return { holders: [holder], before, run: () => run(holder) };
  };
}
