import { expect, test } from 'vitest';
import { RunDecoder } from '#dist/block/drivers/qcow2/read/run-decoder.js';
import { findRun, geometryOf, type Run, RunKind } from '#dist/qcow2/index.js';
import { viewOf } from '#dist/util/index.js';
import { Random } from '../bitmap/random.js';

const SEED = Random.seed();

/** Entries of all kinds, in stretches as images have them. */
function randomTable(random: Random, clusterBits: number): DataView {
  const view = viewOf(new Uint8Array(2 ** clusterBits));
  const clusterSize = 2n ** BigInt(clusterBits);
  for (let at = 0; at < view.byteLength; ) {
    const copied = random.pick([0n, 1n << 63n]);
    let entry = BigInt(random.between(1, 2 ** 30)) * clusterSize;
    let step = clusterSize;
    const kind = random.between(0, 4);
    if (kind === 0) entry = 0n;
    if (kind === 1) entry = random.pick([1n, entry | 1n]);
    if (kind === 2) entry |= 1n << 62n;
    if (kind !== 3) step = random.pick([0n, clusterSize]);
    for (let n = random.between(1, 100); n > 0 && at < view.byteLength; n--, at += 8) {
      view.setBigUint64(at, entry === 0n ? 0n : entry | copied);
      if (entry !== 0n) entry += step;
    }
  }
  return view;
}

test.each([9, 12, 16])(
  'the kernel finds the runs that are there, clusters of 2^%i',
  (clusterBits) => {
    const random = new Random(SEED);
    const geometry = geometryOf({ clusterBits, incompatible: 0n, refcountOrder: 4 });
    const rules = { geometry, version: 3, dataFile: false, image: 'x' };
    const decoder = RunDecoder.for(rules)!;
    const [ours, expected] = [0, 1].map(
      (): Run => ({ kind: 0, length: 0, host: 0, hostLength: 0 }),
    );
    for (let i = 0; i < 50; i++) {
      const start = i * geometry.l2Span;
      const table = { view: randomTable(random, clusterBits), offset: 0, start };
      const end = start + geometry.l2Span;
      for (let from = start; from < end; from += expected.length) {
        findRun(table, rules, { from, end, run: expected });
        expect(decoder.find(table, { from, end, run: ours }), `LACUNA_SEED=${SEED}`).toBe(true);
        const { kind, length, host } = expected;
        // Where compressed and zero clusters lie is nobody's concern here.
        const known = kind === 2 ? { kind, length, host } : { kind, length };
        expect(ours, `LACUNA_SEED=${SEED}`).toMatchObject(known);
      }
    }
    decoder.free();
  },
);

test('the kernel leaves impossible entries to the format', () => {
  const geometry = geometryOf({ clusterBits: 12, incompatible: 0n, refcountOrder: 4 });
  const rules = { geometry, version: 3, dataFile: false, image: 'x' };
  const view = viewOf(new Uint8Array(4096));
  view.setBigUint64(0, 0x1200n);
  // A cluster of zeroes has a place that can be, or none.
  view.setBigUint64(8, 0x1001n);
  view.setBigUint64(16, 0x1201n);
  const run = { kind: 0, length: 0, host: 0, hostLength: 0 };
  const search = { from: 0, end: geometry.l2Span, run };
  expect(RunDecoder.for(rules)!.find({ view, offset: 0, start: 0 }, search)).toBe(false);
  const from = 4096;
  const decoder = RunDecoder.for(rules)!;
  expect(decoder.find({ view, offset: 0, start: 0 }, { ...search, from })).toBe(true);
  expect(run).toMatchObject({ kind: RunKind.zero, length: 4096 });
  const next = { ...search, from: 2 * 4096 };
  expect(decoder.find({ view, offset: 0, start: 0 }, next)).toBe(false);
  expect(() => findRun({ view, offset: 0, start: 0 }, rules, next)).toThrow(
    /no start of a cluster/,
  );
  expect(RunDecoder.for({ ...rules, version: 2 })).toBeUndefined();
  expect(RunDecoder.for({ ...rules, dataFile: true })).toBeUndefined();
});
