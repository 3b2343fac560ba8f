/** What every bench shares: its options, interleaved runs, medians, and one way to print a table. */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
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
  /** May tell milliseconds of processor time, of all processes that it started. */
  run(): Promise<unknown>;
  /** Throws if the output of the last run is wrong. */
  verify?(): Promise<void>;
  /** Bytes on disk that the last run took. */
  storedBytes?(): Promise<number>;
  /** Bytes of memory that the last run has left in use. */
  memoryBytes?(): Promise<number>;
  /** Takes the output away after every run, so that it does not fill the page cache for the next one. */
  clear?(): Promise<void>;
}

export interface Result {
  workload: string;
  name: string;
  medianMs: number;
  runsMs: number[];
  /** Median of the processor time, where contenders tell it. */
  cpuMs?: number | undefined;
  /** Bytes on disk of the output, where contenders tell it. */
  storedBytes?: number | undefined;
  /** Bytes of memory, where contenders tell it. */
  memoryBytes?: number | undefined;
  /** Median of this one over the median of the first contender: above 1, ours is faster. */
  ratio: number;
}

/** One row group of the table. */
export interface Workload {
  readonly name: string;
  /** Makes what is copied, lets `race` run the contenders, of which the first is ours, and takes it away again. */
  run(context: WorkloadContext): Promise<void>;
}

export interface WorkloadContext extends Pick<BenchOptions, 'smoke'> {
  /** Where files may be made; removed afterwards. */
  readonly folder: string;
  /** @param title of the rows, where a workload has several races over what took long to make */
  race(contenders: readonly Contender[], title?: string): Promise<void>;
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
  const cpuTimes = contenders.map((): number[] => []);
  const stored: (number | undefined)[] = [];
  const memory: (number | undefined)[] = [];
  for (let round = 0; round <= runs; round++) {
    for (const [i, contender] of contenders.entries()) {
      await contender.prepare?.();
      const started = performance.now();
      const cpuMs = await contender.run();
      const took = performance.now() - started;
      if (round > 0 || runs === 0) {
        times[i].push(took);
        if (typeof cpuMs === 'number') cpuTimes[i].push(cpuMs);
      }
      if (round === 0) {
        await contender.verify?.();
        stored[i] = await contender.storedBytes?.();
        memory[i] = await contender.memoryBytes?.();
      }
      await contender.clear?.();
    }
  }
  const medians = times.map(median);
  const results = contenders.map(({ name }, i) => ({
    workload,
    name,
    medianMs: medians[i],
    runsMs: times[i],
    ...(cpuTimes[i].length > 0 && { cpuMs: median(cpuTimes[i]) }),
    ...(stored[i] !== undefined && { storedBytes: stored[i] }),
    ...(memory[i] !== undefined && { memoryBytes: memory[i] }),
    ratio: medians[i] / medians[0],
  }));
  for (const result of results) tell(result);
  return results;
}

/** Says a row as soon as it is known, on standard error: a bench takes many minutes, and may be stopped half way. */
export function tell(result: Omit<Result, 'runsMs'>): void {
  const { workload, name, medianMs, ratio, cpuMs, storedBytes, memoryBytes } = result;
  const load = loadavg()[0].toFixed(1);
  const cpu = cpuMs === undefined ? '' : `, ${Math.round(cpuMs)} ms of processor time`;
  const size = storedBytes === undefined ? '' : `, ${storedBytes} bytes on disk`;
  const memory = memoryBytes === undefined ? '' : `, ${memoryBytes} bytes of memory`;
  console.error(
    `${workload}: ${name} ${medianMs.toPrecision(4)} ms, ${ratio.toFixed(2)} times ours${cpu}${size}${memory}, load ${load}`,
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
    results.map(({ workload, name, medianMs, runsMs, ratio, ...told }) => ({
      workload,
      name,
      'median ms': Math.round(medianMs),
      'fastest ms': Math.round(Math.min(...runsMs)),
      'slowest ms': Math.round(Math.max(...runsMs)),
      'times ours': Number(ratio.toFixed(2)),
      ...(told.cpuMs !== undefined && { 'cpu ms': Math.round(told.cpuMs) }),
      ...(told.storedBytes !== undefined && { 'MiB on disk': mebibytes(told.storedBytes) }),
      ...(told.memoryBytes !== undefined && { 'MiB of memory': mebibytes(told.memoryBytes) }),
    })),
  );
}

function mebibytes(bytes: number): number {
  return Math.round(bytes / 2 ** 20);
}

/** Runs workloads one after the other, each in a folder of its own. */
export async function runWorkloads(
  workloads: readonly Workload[],
  options: BenchOptions,
): Promise<void> {
  const { smoke, runs, only } = options;
  const results: Result[] = [];
  for (const { name, run } of workloads) {
    if (only !== undefined && !name.includes(only)) continue;
    const folder = await mkdtemp(join(process.env.LACUNA_BENCH_DIR ?? tmpdir(), 'lacuna-bench-'));
    try {
      await run({
        folder,
        smoke,
        race: async (contenders, title = name) =>
          void results.push(...(await race(title, contenders, runs))),
      });
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
  report(results, options);
}
