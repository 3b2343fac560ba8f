import { NbdClient } from 'lacuna/nbd';
import { expect, test } from 'vitest';
import { firstSeed } from '../../support/long-run.js';
import { usePeers } from '../../support/peers.js';

const AREA = 256 * 1024;
const WORKERS = 12;
const ROUNDS = 150;
const peers = usePeers();

/** Small, seeded, good enough to choose requests (mulberry32). */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let bits = Math.imul(state ^ (state >>> 15), state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) % below;
  };
}

/** Random requests on an area of its own, checked against a plain array; some reads are given up. */
async function work(client: NbdClient, index: number, seed: number): Promise<number> {
  const pick = random(seed + index);
  const oracle = new Uint8Array(AREA);
  const base = index * AREA;
  let aborted = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const start = pick(AREA - 1);
    const length = 1 + pick(Math.min(AREA - start, pick(2) ? 600 : AREA) - 1 || 1);
    const kind = pick(5);
    if (kind === 0) {
      const source = Uint8Array.from({ length }, () => pick(256));
      oracle.set(source, start);
      await client.write(base + start, source, { fua: pick(4) === 0 });
    } else if (kind === 1) {
      oracle.fill(0, start, start + length);
      await client.writeZeroes(base + start, length, { unmap: pick(2) === 0 });
    } else if (kind === 2) {
      const target = new Uint8Array(length);
      const reading = client.read(base + start, target, {
        signal: AbortSignal.timeout(pick(6)),
      });
      const gaveUp = await reading.then(
        () => false,
        () => true,
      );
      if (!gaveUp) continue;
      aborted++;
      const kept = target.slice();
      await client.read(base, new Uint8Array(8));
      expect(Buffer.compare(target, kept)).toBe(0);
    } else {
      const target = new Uint8Array(length).fill(0xee);
      await client.read(base + start, target);
      const wanted = oracle.subarray(start, start + length);
      if (Buffer.compare(target, wanted) !== 0) throw new Error(`round ${round} differs`);
    }
  }
  return aborted;
}

test.each([
  ['structured', []],
  ['simple', ['--no-sr']],
])('random requests with %s replies, some given up, agree with a plain array', async (_, args) => {
  const seed = firstSeed();
  const { server } = await peers.nbdkit([
    ...args,
    ...['-t', '16', '--filter=delay', 'memory', `${WORKERS * AREA}`, 'rdelay=3ms', 'wdelay=1ms'],
  ]);
  const client = await NbdClient.connect({ server });
  const workers = Array.from({ length: WORKERS }, (_, index) => work(client, index, seed));
  const aborted = await Promise.all(workers).catch((cause) => {
    throw new Error(`LACUNA_SEED=${seed} shows it again`, { cause });
  });
  expect(aborted.reduce((sum, count) => sum + count, 0)).toBeGreaterThan(10);
  await client.close();
});
