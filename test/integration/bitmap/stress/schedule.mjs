/**
 * One thread of the stress test: random operations on a shared bitmap until a moment, each of them
 * checked against what this thread knows. Every granule has one thread that sets it, so that the
 * thread knows its state although three others change the same words, nodes and counts:
 *
 *     0 .. half       set by the owner (granule % threads), claimed by anybody
 *     half .. end     set and reset by the owner, singly
 *     spans           behind the end: one span of some leaves for each thread, set and reset in pieces
 *
 * `sets` and `claims` are shared: how often each granule of the first part was set and claimed.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { Arena, Bitmap } from 'lacuna/bitmap';

const { shared, handle, me, threads, seed, milliseconds, geometry, sets, claims } = workerData;
const { granularity, half, granules, span } = geometry;
const arena = Arena.attach(shared);
const bitmap = Bitmap.attach(arena, handle);
/** What this thread knows to be dirty, of its own granules. */
const mirror = new Uint8Array(bitmap.size / granularity);
const mySpan = granules + me * span;
const out = new Float64Array(32);

let state = seed + me * 7919;
function below(limit) {
  state = (Math.imul(state, 1664525) + 1013904223) | 0;
  return Math.floor(((state >>> 0) / 2 ** 32) * limit);
}

/** One of this thread's granules from `from` up to `to`. */
function mine(from, to) {
  return from + below((to - from) / threads) * threads + me;
}

function check(condition, what) {
  if (!condition) throw new Error(what);
}

/** Sets a granule whose last set has been claimed; before that it would be dirty already. */
function setClaimable() {
  const granule = mine(0, half);
  if (Atomics.load(claims, granule) !== Atomics.load(sets, granule)) return;
  Atomics.add(sets, granule, 1);
  bitmap.set(granule * granularity, 1);
}

function claim() {
  const from = below(2) * below(half) * granularity;
  const limits = { maxBytes: (1 + below(60)) * granularity, from, end: half * granularity };
  const pairs = bitmap.claim(out, limits);
  for (let i = 0; i < pairs * 2; i += 2) {
    const first = out[i] / granularity;
    for (let granule = first; granule < first + out[i + 1] / granularity; granule++) {
      const taken = Atomics.add(claims, granule, 1) + 1;
      check(taken <= Atomics.load(sets, granule), 'a granule was claimed twice');
    }
  }
}

function mark() {
  const granule = mine(half, granules);
  mirror[granule] = below(2);
  if (mirror[granule] === 1) bitmap.set(granule * granularity, 1);
  else bitmap.reset(granule * granularity, granularity);
  check(bitmap.get(granule * granularity) === (mirror[granule] === 1), 'a single change was lost');
}

function setMany() {
  const many = Array.from({ length: 8 }, () => mine(half, granules));
  for (const granule of many) mirror[granule] = 1;
  bitmap.setMany(many.map((granule) => granule * granularity));
}

function paint() {
  const from = mySpan + below(span);
  const to = Math.min(mySpan + span, from + 1 + below(below(4) === 0 ? span : 300));
  const dirty = below(2);
  mirror.fill(dirty, from, to);
  if (dirty === 1) bitmap.set(from * granularity, (to - from) * granularity);
  else bitmap.reset(from * granularity, (to - from) * granularity);
  let count = 0;
  for (let granule = mySpan; granule < mySpan + span; granule++) count += mirror[granule];
  const counted = bitmap.countIn(mySpan * granularity, span * granularity) / granularity;
  check(counted === count, 'the count of a span is wrong');
}

function look() {
  const granule = mine(half, granules);
  const expected = mirror[granule] === 1;
  check(bitmap.get(granule * granularity) === expected, 'a granule has the wrong state');
  const end = (granule + 1) * granularity;
  const found = bitmap.nextDirty(granule * granularity, end) >= 0;
  check(found === expected, 'a search missed a granule');
}

/** A snapshot is one moment: its counts are those of its bits, and ours are as we left them. */
function snapshot() {
  const copy = bitmap.snapshot();
  if (below(2) === 0) copy.set(below(granules) * granularity, 1);
  if (below(4) === 0) copy.merge(bitmap);
  let count = 0;
  for (const { length } of copy.ranges()) count += length / granularity;
  check(copy.count === count, 'the count of a snapshot is not that of its bits');
  if (below(8) === 0) copy.resetAll();
  copy.free();
}

function merge() {
  const other = new Bitmap({ size: bitmap.size, granularity, arena });
  for (let i = 0; i < 4; i++) {
    const granule = mine(half, granules);
    mirror[granule] = 1;
    other.set(granule * granularity, 1);
  }
  bitmap.merge(other);
  other.free();
}

const OFTEN = [setClaimable, setClaimable, setClaimable, claim, mark, mark, mark, look, setMany];
const SELDOM = [paint, snapshot, merge];

function run() {
  const end = Date.now() + milliseconds;
  while (Date.now() < end) {
    for (let i = 0; i < 40; i++) OFTEN[below(OFTEN.length)]();
    SELDOM[below(SELDOM.length)]();
  }
  for (let granule = half; granule < mirror.length; granule++) {
    const isMine = granule < granules ? granule % threads === me : isInMySpan(granule);
    if (!isMine) continue;
    const dirty = bitmap.get(granule * granularity);
    check(dirty === (mirror[granule] === 1), 'a granule ended in the wrong state');
  }
  bitmap.free();
  arena.detach();
}

function isInMySpan(granule) {
  return granule >= mySpan && granule < mySpan + span;
}

try {
  run();
  parentPort.postMessage('');
} catch (error) {
  parentPort.postMessage(String(error.message));
}
