import { describe, expect, it } from 'vitest';
import { Pace, type PaceRange } from '#dist/copy/move/pace.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

const RANGE: PaceRange = {
  requests: 8,
  mostRequests: 64,
  requestSize: 512 * KIB,
  largestRequest: 2 * MIB,
  mostBytes: 128 * MIB,
};

interface Server {
  /** How long a request takes, if nothing else is there to be done. */
  latencyMs: number;
  /** What goes through the connection. */
  bytesPerMs: number;
  /** Requests that are worked on at once; the others wait. */
  atOnce?: number;
  /** How long a request takes longer for its length: what one disk of many gives. */
  bytesPerMsOfRequest?: number;
}

interface Outcome {
  requests: number;
  size: number;
  /** When the load was changed last. */
  foundMs: number;
  mostBytes: number;
}

/** Lets a server answer for some seconds, as many requests at once as the pace says. */
function settle(pace: Pace, server: Server): Outcome {
  const { latencyMs, bytesPerMs, atOnce = 1000, bytesPerMsOfRequest = Infinity } = server;
  const workers = new Array<number>(atOnce).fill(0);
  const inFlight: { size: number; doneMs: number }[] = [];
  let [now, connectionFreeMs, foundMs, mostBytes] = [0, 0, 0, 0];
  let load = '';
  while (now < 3000) {
    while (inFlight.length < pace.requests) {
      const size = pace.requestSize;
      const worker = workers.indexOf(Math.min(...workers));
      workers[worker] = Math.max(now, workers[worker]) + latencyMs + size / bytesPerMsOfRequest;
      connectionFreeMs = Math.max(connectionFreeMs, workers[worker]) + size / bytesPerMs;
      inFlight.push({ size, doneMs: connectionFreeMs });
      mostBytes = Math.max(
        mostBytes,
        inFlight.reduce((sum, request) => sum + request.size, 0),
      );
    }
    const { size, doneMs } = inFlight.shift()!;
    now = doneMs;
    pace.done(size, now);
    const becomes = `${pace.requests} of ${pace.requestSize}`;
    if (becomes !== load) foundMs = now;
    load = becomes;
  }
  return { requests: pace.requests, size: pace.requestSize, foundMs, mostBytes };
}

const fast = { latencyMs: 0.05, bytesPerMs: (3 * GIB) / 1000 };

describe('Pace', () => {
  it('keeps requests few and short where neither more nor longer ones change anything', () => {
    expect(settle(new Pace(RANGE), fast)).toMatchObject({ requests: 8, size: 512 * KIB });
  });

  it('makes requests longer, then more of them, where every answer takes its time', () => {
    const far = { latencyMs: 50, bytesPerMs: (20 * GIB) / 1000 };
    expect(settle(new Pace(RANGE), far)).toMatchObject({ requests: 64, size: 2 * MIB });
  });

  it('finds how much hides the latency within the first fraction of a second', () => {
    const { requests, size, foundMs } = settle(new Pace(RANGE), { ...fast, latencyMs: 5 });
    expect(requests * size).toBeGreaterThanOrEqual(8 * MIB);
    expect(requests * size).toBeLessThanOrEqual(64 * MIB);
    expect(foundMs).toBeLessThan(350);
  });

  it('does not pile up requests that a server leaves lying', () => {
    const busy = { latencyMs: 5, bytesPerMs: (20 * GIB) / 1000, atOnce: 16 };
    expect(settle(new Pace(RANGE), busy)).toMatchObject({ requests: 16, size: 2 * MIB });
    const busier = { ...busy, atOnce: 8 };
    expect(settle(new Pace(RANGE), busier)).toMatchObject({ requests: 8, size: 2 * MIB });
  });

  it('makes more requests, and no longer ones, where each takes as long as it is long', () => {
    const disks = { latencyMs: 0.5, bytesPerMs: (20 * GIB) / 1000, bytesPerMsOfRequest: 50 * KIB };
    expect(settle(new Pace(RANGE), disks)).toMatchObject({ requests: 64, size: 512 * KIB });
  });

  it('goes back where it gets slower', () => {
    const pace = new Pace(RANGE);
    for (let now = 0; now < 3000; ) {
      const isMore = pace.requests > 8 || pace.requestSize > 512 * KIB;
      now += pace.requestSize / (isMore ? MIB : 2 * MIB);
      pace.done(pace.requestSize, now);
    }
    expect([pace.requests, pace.requestSize]).toEqual([8, 512 * KIB]);
  });

  it('never goes beyond what it may, nor back before where it began', () => {
    const far = { latencyMs: 50, bytesPerMs: (20 * GIB) / 1000 };
    const told = { ...RANGE, mostRequests: 8, largestRequest: 512 * KIB };
    expect(settle(new Pace(told), far)).toMatchObject({ requests: 8, size: 512 * KIB });
    const sizeTold = { ...RANGE, largestRequest: 512 * KIB };
    expect(settle(new Pace(sizeTold), far)).toMatchObject({ requests: 64, size: 512 * KIB });
    const numberTold = { ...RANGE, requests: 3, mostRequests: 3 };
    expect(settle(new Pace(numberTold), far)).toMatchObject({ requests: 3, size: 2 * MIB });
    const odd = { ...RANGE, requests: 3, mostRequests: 10 };
    expect(settle(new Pace(odd), far)).toMatchObject({ requests: 10, size: 2 * MIB });
    const little = { ...RANGE, mostBytes: 24 * MIB };
    const { requests, size, mostBytes } = settle(new Pace(little), far);
    expect({ requests, size }).toEqual({ requests: 12, size: 2 * MIB });
    expect(mostBytes).toBeLessThanOrEqual(24 * MIB);
    const tight = { ...RANGE, mostBytes: 8 * MIB };
    expect(settle(new Pace(tight), far)).toMatchObject({ requests: 8, size: MIB });
    expect(settle(new Pace(RANGE), { ...fast, latencyMs: 2000 })).toMatchObject({ requests: 8 });
  });

  it('is not misled by a time in which the copy was held up', () => {
    const pace = new Pace(RANGE);
    let now = 0;
    const run = (ms: number) => {
      for (const end = now + ms; now < end; ) {
        now += 5 / pace.requests;
        pace.done(pace.requestSize, now);
      }
    };
    for (let pause = 0; pause < 20; pause++) {
      run(97);
      now += 10_000;
      pace.interrupted();
    }
    expect([pace.requests, pace.requestSize]).toEqual([64, 2 * MIB]);
  });

  it('stays where it is told to', () => {
    const pace = new Pace(RANGE);
    pace.stay(5, MIB);
    const far = { latencyMs: 50, bytesPerMs: (20 * GIB) / 1000 };
    expect(settle(pace, far)).toMatchObject({ requests: 5, size: MIB });
  });
});
