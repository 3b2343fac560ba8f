import { Worker } from 'node:worker_threads';
import { type Arena, Bitmap } from 'lacuna/bitmap';

const THREADS = 4;
/** Small, so that the threads meet; the spans are wide enough for leaves to come and go. */
const GEOMETRY = { granularity: 65536, half: 2048, granules: 8192, span: 6000 };
const SIZE = (GEOMETRY.granules + THREADS * GEOMETRY.span) * GEOMETRY.granularity;
/** How long a thread of broken kernels may hang. */
const GRACE_MS = 8000;

/**
 * Lets four threads loose on one bitmap of an arena for a while. Returns what was wrong, in words;
 * empty when nothing was. The arena is not to be used after anything was.
 */
export async function stress(
  arena: Arena,
  seed: number,
  milliseconds: number,
  graceMs = GRACE_MS,
): Promise<string> {
  const idle = arena.usedBytes;
  const bitmap = new Bitmap({ size: SIZE, granularity: GEOMETRY.granularity, arena });
  const counters = new SharedArrayBuffer(GEOMETRY.half * 8);
  const sets = new Int32Array(counters, 0, GEOMETRY.half);
  const claims = new Int32Array(counters, GEOMETRY.half * 4);
  const workers = Array.from({ length: THREADS }, (_, me) => {
    const task = { me, threads: THREADS, seed, milliseconds, geometry: GEOMETRY, sets, claims };
    return new Worker(new URL('schedule.mjs', import.meta.url), {
      workerData: { ...task, shared: arena.shared, handle: bitmap.handle },
    });
  });
  const answers = workers.map((worker) => answer(worker, milliseconds + graceMs));
  const wrong = await firstWrong(answers);
  await Promise.all(workers.map((worker) => worker.terminate()));
  if (wrong !== '') return wrong;
  const left = inspect(bitmap, sets, claims);
  if (left !== '') return left;
  bitmap.free();
  return arena.usedBytes === idle ? '' : 'memory was lost';
}

/** The first answer that is not empty, for which the others may wait in vain; empty where all are. */
function firstWrong(answers: Promise<string>[]): Promise<string> {
  const wrong = answers.map((each) => each.then((text) => text || Promise.reject(new Error())));
  return Promise.any(wrong).catch(() => '');
}

function answer(worker: Worker, limitMs: number): Promise<string> {
  return new Promise((resolve) => {
    const late = setTimeout(() => resolve('a thread hangs'), limitMs);
    const settle = (text: string) => {
      clearTimeout(late);
      resolve(text);
    };
    worker.on('message', settle).on('error', (error) => settle(`a thread died: ${error}`));
  });
}

/** What a set leaves: dirty, or claimed exactly once. */
function inspect(bitmap: Bitmap, sets: Int32Array, claims: Int32Array): string {
  let count = 0;
  for (const { length } of bitmap.ranges()) count += length / GEOMETRY.granularity;
  if (count !== bitmap.count) return `${bitmap.count} are counted, ${count} are dirty`;
  for (let granule = 0; granule < GEOMETRY.half; granule++) {
    const owed = sets[granule] - claims[granule];
    const dirty = Number(bitmap.get(granule * GEOMETRY.granularity));
    if (owed > dirty) return `the last set of granule ${granule} was lost`;
    if (owed < dirty) return `granule ${granule} is dirty, though its last set was claimed`;
  }
  return '';
}
