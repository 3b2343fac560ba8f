/** What every bench shares: its options, interleaved runs, medians, and one way to print a table. */
import { execFile } from 'node:child_process';
import { loadavg } from 'node:os';
import { promisify } from 'node:util';

export interface BenchOptions {
  /** Tiny sizes and one run: shows that the bench works, says nothing of speed. */
  smoke: boolean;
  json: boolean;
  /** Runs that count; 0 lets the one that is verified count. */
  runs: number;
  /** Run only the workloads whose name holds this. */
  only?: string | undefined;
}

export type Bench = (options: BenchOptions) => Promise<void>;

/** One competitor in a workload: ours, or a tool that a user would take instead. */
export interface Contender {
  name: string;
  /** Comes before every run, and does not count. */
  prepare?(): Promise<void>;
  run(): Promise<void>;
  /** Throws if the output of the last run is wrong. */
  verify?(): Promise<void>;
  /** Takes the output away after every run, so that it does not fill the page cache for the next one. */
  clear?(): Promise<void>;
}

export interface Result {
  workload: string;
  name: string;
  medianMs: number;
  runsMs: number[];
  /** Median of this one over the median of the first contender: above 1, ours is faster. */
  ratio: number;
}

export const exec = promisify(execFile);

/**
 * Runs the contenders in turn, round after round, so that a slow spell of the machine hits all of them.
 * The first is ours. Each verifies its output once, after its first run, which is not counted where others follow.
 */
export async function race(
  workload: string,
  contenders: readonly Contender[],
  runs: number,
): Promise<Result[]> {
  const times = contenders.map((): number[] => []);
  for (let round = 0; round <= runs; round++) {
    for (const [i, contender] of contenders.entries()) {
      await contender.prepare?.();
      const started = performance.now();
      await contender.run();
      const took = performance.now() - started;
      if (round > 0 || runs === 0) times[i].push(took);
      if (round === 0) await contender.verify?.();
      await contender.clear?.();
    }
  }
  const medians = times.map(median);
  const results = contenders.map(({ name }, i) => ({
    workload,
    name,
    medianMs: medians[i],
    runsMs: times[i],
    ratio: medians[i] / medians[0],
  }));
  for (const result of results) tell(result);
  return results;
}

/** Says a row as soon as it is known, on standard error: a bench takes many minutes, and may be stopped half way. */
export function tell({ workload, name, medianMs, ratio }: Omit<Result, 'runsMs'>): void {
  const load = loadavg()[0].toFixed(1);
  console.error(
    `${workload}: ${name} ${medianMs.toPrecision(4)} ms, ${ratio.toFixed(2)} times ours, load ${load}`,
  );
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

export function report(results: readonly Result[], { json }: BenchOptions): void {
  if (json) {
    console.log(JSON.stringify(results, null, 2));
    return;
  }
  console.table(
    results.map(({ workload, name, medianMs, runsMs, ratio }) => ({
      workload,
      name,
      'median ms': Math.round(medianMs),
      'fastest ms': Math.round(Math.min(...runsMs)),
      'slowest ms': Math.round(Math.max(...runsMs)),
      'times ours': Number(ratio.toFixed(2)),
    })),
  );
}
