import { expect, test } from 'vitest';
import { Coverage } from '#dist/nbd/client/session/coverage.js';
import fc from '../../support/fast-check.js';

const LENGTH = 64;

test('bytes are counted once, in any order, like a plain list of flags would', () => {
  const piece = fc.tuple(fc.nat(LENGTH - 1), fc.integer({ min: 1, max: 12 }));
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 40 }), (pieces) => {
      const coverage = new Coverage();
      const oracle = new Array<boolean>(LENGTH + 12).fill(false);
      for (const [start, length] of pieces) {
        const fresh = oracle.slice(start, start + length).every((taken) => !taken);
        expect(coverage.add(start, length)).toBe(fresh);
        // An overlap ends the connection, so what is covered afterwards is of no interest.
        if (!fresh) return;
        oracle.fill(true, start, start + length);
        expect(coverage.contiguous).toBe(oracle.indexOf(false));
      }
    }),
    { numRuns: 2000 },
  );
});

test('a complete range in any order is contiguous at its end', () => {
  const pieces = Array.from({ length: 512 }, (_, i) => i);
  fc.assert(
    fc.property(fc.shuffledSubarray(pieces, { minLength: 512 }), (order) => {
      const coverage = new Coverage();
      for (const i of order) expect(coverage.add(i * 8, 8)).toBe(true);
      expect(coverage.contiguous).toBe(4096);
      coverage.reset();
      expect(coverage.contiguous).toBe(0);
      expect(coverage.add(8, 8)).toBe(true);
    }),
    { numRuns: 50 },
  );
});

test('a reply scattered over too many islands is refused, quickly', () => {
  const coverage = new Coverage();
  let added = 0;
  while (added < 100_000 && coverage.add(2 + added * 2, 1)) added++;
  expect(added).toBe(4096);
});
