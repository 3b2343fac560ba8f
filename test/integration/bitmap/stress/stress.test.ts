import assert from 'node:assert/strict';
import { Arena } from 'lacuna/bitmap';
import { describe, expect, it } from 'vitest';
import { stepsOr } from '../../../support/long-run.js';
import { Random } from '../../../unit/bitmap/random.js';
import { arenaOf, compile, type Patch } from './broken.js';
import { stress } from './stress.js';

/** How long the kernels that ship must hold out, and how long broken ones may. */
const STEADY_MS = stepsOr(500);
const HEAT_MS = 300;
const BUDGET_MS = 300_000;
/** What a thread of the kernels that ship may take longer than it was told to, on a busy machine. */
const GRACE_MS = 300_000;

/** Sleeps where the others have to come in for something to go wrong: without it they may miss it for minutes. */
const LINGER = 'atomic.wait<i32>(4, 0, 20_000);';

const UNLOCK = 'unlock(h + BITMAP_LOCK);';
const LOCK = 'lock(h + BITMAP_LOCK);';

/** Ways to break the lock or the order of stores. */
const BROKEN: Record<string, Patch[]> = {
  'a lock that does not wait': [
    ['lock.ts', 'while (atomic.xchg<u32>(word, 2) != 0) {', 'while (false) {'],
  ],
  'a lock that looks and takes in two steps': [
    [
      'lock.ts',
      'if (atomic.cmpxchg<u32>(word, 0, 1) != 0) lockContended(word);',
      `if (load<u32>(word) != 0) lockContended(word); else { ${LINGER} store<u32>(word, 1); }`,
    ],
  ],
  'a lock that wakes nobody': [
    [
      'lock.ts',
      'if (atomic.xchg<u32>(word, 0) == 2) atomic.notify(word, 1);',
      'atomic.xchg<u32>(word, 0);',
    ],
    ['lock.ts', 'WAIT_NS: i64 = 1_000_000_000', 'WAIT_NS: i64 = 200_000_000'],
    ['lock.ts', 'MOST_WAITS: u32 = 10', 'MOST_WAITS: u32 = 1'],
    ['lock.ts', 'SPINS: i32 = 200', 'SPINS: i32 = 0'],
  ],
  'a set that unlocks before its last store': [
    [
      'mark.ts',
      'import { wordAt } from "./leaf";',
      'import { wordAt } from "./leaf";\nimport { lock, unlock } from "./lock";\nimport { BITMAP_LOCK } from "./layout";',
    ],
    [
      'mark.ts',
      '  addToPath(h, height, granule, dirty ? 1 : -1);',
      `  ${UNLOCK}\n  ${LINGER}\n  addToPath(h, height, granule, dirty ? 1 : -1);\n  ${LOCK}`,
    ],
  ],
  'a claim that looks and clears in two steps': [
    [
      'query.ts',
      '  paintRoot(h, low, high, false);',
      `  unlockBitmap(h);\n  ${LINGER}\n  lockBitmap(h);\n  paintRoot(h, low, high, false);`,
    ],
  ],
  'an allocator without a lock': [
    [
      'nodes.ts',
      '  const before = load<u32>(h, BITMAP_SPARES);\n  lock(ARENA_LOCK);',
      '  const before = load<u32>(h, BITMAP_SPARES);',
    ],
    ['nodes.ts', '  unlock(ARENA_LOCK);\n  return unit != 0;', '  return unit != 0;'],
    [
      'nodes.ts',
      '  const entry = load<u32>(entryOf(unit));\n  store<u32>(ARENA_PENDING',
      `  const entry = load<u32>(entryOf(unit));\n  ${LINGER}\n  store<u32>(ARENA_PENDING`,
    ],
  ],
};

describe('four threads on one bitmap, in random order,', () => {
  it.each(['simd', 'scalar'] as const)('lose nothing, %s kernels', async (variant) => {
    const arena = Arena.create({ variant });
    const seed = Random.seed();
    assert.equal(await stress(arena, seed, STEADY_MS, GRACE_MS), '', `LACUNA_SEED=${seed}`);
  });

  it('lose nothing with the kernels compiled as the broken ones are', async () => {
    const seed = Random.seed();
    assert.equal(
      await stress(arenaOf(await compile([])), seed, HEAT_MS, GRACE_MS),
      '',
      `LACUNA_SEED=${seed}`,
    );
  });

  it.each(Object.entries(BROKEN))('find out %s', async (_, patches) => {
    const kernels = await compile(patches);
    const end = Date.now() + BUDGET_MS;
    const seeds = new Random(Random.seed());
    let wrong = '';
    while (wrong === '' && Date.now() < end) {
      wrong = await stress(arenaOf(kernels), seeds.between(1, 2 ** 31 - 1), HEAT_MS);
    }
    expect(wrong).not.toBe('');
  });
});
