/** Every operation of a bitmap, ours beside what one would take instead. */
import { Bench as Timing } from 'tinybench';
import type { Contender, Holder } from './bitmap/contender.js';
import { OPERATIONS, type Operation, type Prepared } from './bitmap/operations.js';
import { ours } from './bitmap/ours.js';
import { roaring } from './bitmap/roaring.js';
import { plainWords } from './bitmap/words.js';
import { type BenchOptions, median, tell } from './support/bench.js';

const SIZES = { '1 TiB': 2 ** 24, '1 PiB': 2 ** 34 };

interface Row {
  operation: string;
  size: string;
  contender: string;
  /** Null: it cannot. */
  medianMs: number | null;
  bytes: number | null;
  /** Times what ours with SIMD takes. */
  ratio: number | null;
  /** QEMU's hbitmap, measured elsewhere, on another day. */
  hbitmapMs?: number | undefined;
}

export async function benchBitmap(options: BenchOptions): Promise<void> {
  const contenders = await contendersHere();
  const rows: Row[] = [];
  for (const [size, granules] of Object.entries(SIZES)) {
    for (const operation of OPERATIONS) {
      if (options.only !== undefined && !operation.name.includes(options.only)) continue;
      rows.push(...(await compete(operation, size, granules, contenders, options)));
    }
  }
  if (options.json) console.log(JSON.stringify(rows, null, 2));
  else console.table(rows.map(shown));
}

async function contendersHere(): Promise<Contender[]> {
  const others = await Promise.all([roaring('roaring-wasm'), roaring('roaring')]);
  if (others[1] === null) {
    console.error('roaring is left out: npm install --no-save roaring brings it (a native addon)');
  }
  return [ours('simd'), ours('scalar'), plainWords, ...others.filter((other) => other !== null)];
}

async function compete(
  operation: Operation,
  size: string,
  granules: number,
  contenders: readonly Contender[],
  options: BenchOptions,
): Promise<Row[]> {
  const rows: Row[] = [];
  let expected: string | undefined;
  for (const { name, make } of contenders) {
    const prepared = operation.prepare(() => make(granules), granules, options.smoke);
    const result = prepared && (await measure(prepared, options));
    if (result !== null) {
      expected ??= result.answer;
      if (result.answer !== expected) {
        throw new Error(
          `${operation.name}, ${size}: ${name} has ${result.answer}, others ${expected}`,
        );
      }
    }
    const medianMs = result?.medianMs ?? null;
    const first = rows[0]?.medianMs ?? medianMs;
    const ratio = medianMs === null || first === null ? null : medianMs / first;
    if (medianMs !== null && ratio !== null) {
      tell({ workload: `${operation.name}, ${size}`, name, medianMs, ratio });
    }
    rows.push({
      operation: operation.name,
      size,
      contender: name,
      medianMs,
      bytes: result?.bytes ?? null,
      ratio,
      hbitmapMs: rows.length === 0 ? operation.hbitmapMs?.[size] : undefined,
    });
  }
  return rows;
}

/** Runs once to verify, then for the times. What comes before a run is not counted. */
async function measure(prepared: Prepared, { runs }: BenchOptions) {
  const { before, run, holders } = prepared;
  before?.();
  const returned = run();
  const subject: Holder = holders[0];
  // What it returned and what it left must be the same for all.
  const answer = JSON.stringify([returned, subject.count(), subject.runs()]);
  const bytes = subject.bytes();
  const timing = new Timing({
    iterations: Math.max(1, runs),
    time: 0,
    warmup: false,
    retainSamples: true,
  });
  timing.add('', () => void run(), { beforeEach: () => void before?.() });
  const [task] = await timing.run();
  const { result } = task;
  for (const holder of holders) holder.free();
  if (!('latency' in result)) throw new Error(`the run failed: ${JSON.stringify(result)}`);
  return { answer, bytes, medianMs: median(result.latency.samples ?? [result.latency.mean]) };
}

function shown({ operation, size, contender, medianMs, bytes, ratio, hbitmapMs }: Row) {
  const cannot = medianMs === null;
  return {
    operation,
    size,
    contender,
    ms: cannot ? 'cannot' : Number(medianMs.toPrecision(3)),
    'times ours': ratio === null ? '' : Number(ratio.toPrecision(3)),
    MiB: bytes === null ? '' : Number((bytes / 2 ** 20).toPrecision(3)),
    'hbitmap ms (measured elsewhere)': hbitmapMs ?? '',
  };
}
