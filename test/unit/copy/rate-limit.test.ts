import { describe, expect, it } from 'vitest';
import { RATE_LIMIT_BYTES, RateLimit } from '#dist/copy/control/rate-limit.js';
import fc from '../../support/fast-check.js';

const KiB = 1024;
const MiB = 1024 * KiB;

function limitOf(rate: number | undefined): RateLimit {
  const limit = new RateLimit(new SharedArrayBuffer(RATE_LIMIT_BYTES), 0);
  limit.run(true, 0);
  limit.setRate(rate, 0);
  return limit;
}

/** Lanes that always have something to move, until `end`; the moment and size of each request that went. */
function saturate(limit: RateLimit, sizes: readonly number[], from: number, end: number) {
  const gone: { at: number; bytes: number; lane: number }[] = [];
  const lanes = sizes.map((bytes, lane) => ({ lane, bytes, at: from, ticket: -1 }));
  for (;;) {
    lanes.sort((a, b) => a.at - b.at);
    const [next] = lanes;
    if (next.at >= end) return gone;
    if (next.ticket < 0) next.ticket = limit.draw(next.bytes, next.at);
    const wait = limit.wait(next.ticket, next.at);
    if (wait > 1e-6) {
      next.at += wait;
      continue;
    }
    gone.push({ at: next.at, bytes: next.bytes, lane: next.lane });
    next.ticket = -1;
  }
}

const sum = (gone: readonly { bytes: number }[]) => gone.reduce((all, { bytes }) => all + bytes, 0);

describe('a rate limit', () => {
  it('is kept within a few per cent in every second, by requests of any size', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: MiB, max: 1024 * MiB }),
        fc.array(fc.double({ min: 0.05, max: 1, noNaN: true }), { minLength: 1, maxLength: 32 }),
        fc.integer({ min: 0, max: 4000 }),
        (rate, shares, from) => {
          const limit = limitOf(rate);
          const sizes = shares.map((share) => Math.max(512, Math.floor(share * limit.pieceSize)));
          const gone = saturate(limit, sizes, 1000, 7000);
          const second = gone.filter(({ at }) => at >= 1000 + from && at < 2000 + from);
          // One request may straddle each end.
          expect(Math.abs(sum(second) - rate)).toBeLessThan(rate * 0.03 + 2 * limit.pieceSize);
          expect(Math.abs(sum(gone) / 6 - rate)).toBeLessThan(rate * 0.02);
        },
      ),
    );
  });

  it('gives every thread its turn', () => {
    const gone = saturate(limitOf(10 * MiB), Array(8).fill(64 * KiB), 0, 10_000);
    const turns = Array.from(
      { length: 8 },
      (_, lane) => gone.filter((g) => g.lane === lane).length,
    );
    // But for the burst at the start, which the first one takes.
    expect(Math.max(...turns) - Math.min(...turns)).toBeLessThanOrEqual(4);
  });

  it('lets a request pass that is larger than all of a second', () => {
    const limit = limitOf(MiB);
    expect(limit.wait(limit.draw(8 * MiB, 0), 0)).toBeLessThanOrEqual(0);
    expect(limit.wait(limit.draw(1, 0), 0)).toBeGreaterThan(7900);
  });

  it('forgets time in which nothing moved, and time that a clock has skipped', () => {
    const limit = limitOf(MiB);
    saturate(limit, [4 * KiB], 0, 1000);
    const gone = saturate(limit, [4 * KiB], 3_600_000, 3_601_000);
    expect(sum(gone)).toBeLessThan(1.05 * MiB);
  });

  it('asks nobody to wait for what went while there was no limit', () => {
    const limit = limitOf(64 * KiB);
    for (let lane = 0; lane < 64; lane++) limit.draw(4 * KiB, 0);
    limit.setRate(undefined, 10);
    limit.setRate(64 * KiB, 20);
    expect(limit.wait(limit.draw(4 * KiB, 20), 20)).toBeLessThanOrEqual(0);
    expect(limit.wait(limit.draw(4 * KiB, 20), 20)).toBeGreaterThan(30);
  });

  it('is not hurt by a clock that goes back a little', () => {
    const limit = limitOf(MiB);
    limit.setRate(MiB, 1000);
    const ticket = limit.draw(4 * KiB, 1000);
    expect(limit.wait(ticket, 900)).toBeLessThan(5);
  });

  it('applies to what waits already, when it changes', () => {
    const limit = limitOf(KiB);
    limit.draw(MiB, 0);
    const ticket = limit.draw(KiB, 0);
    expect(limit.wait(ticket, 0)).toBeCloseTo(1024 * 1000 - 25, -2);
    limit.setRate(MiB, 0);
    expect(limit.wait(ticket, 0)).toBeCloseTo(1000, -1);
    limit.setRate(undefined, 0);
    expect(limit.wait(ticket, 0)).toBe(0);
  });

  it('may be changed all the time without letting more through, or less', () => {
    const limit = limitOf(10 * MiB);
    let moved = 0;
    for (let at = 0; at < 10_000; at += 10) {
      limit.setRate(10 * MiB, at);
      moved += sum(saturate(limit, [64 * KiB, 32 * KiB], at, at + 10));
    }
    // Every call of saturate begins with lanes that forget the ticket they had: that is paid, and not moved.
    expect(moved).toBeLessThan(101 * MiB);
  });

  it('stands still while the copy is paused, so that nothing is caught up on', () => {
    const limit = limitOf(MiB);
    const first = limit.draw(MiB, 0);
    const second = limit.draw(MiB, 0);
    expect(limit.wait(first, 0)).toBeLessThanOrEqual(0);
    limit.run(false, 500);
    limit.run(true, 60_500);
    expect(limit.wait(second, 60_500)).toBeGreaterThan(450);
    expect(limit.wait(second, 60_500)).toBeLessThan(510);
  });

  it('asks for requests that spread over time', () => {
    expect(limitOf(undefined).pieceSize).toBe(Number.POSITIVE_INFINITY);
    expect(limitOf(50 * MiB).pieceSize).toBe(MiB);
    expect(limitOf(10_000).pieceSize).toBe(256);
  });
});
