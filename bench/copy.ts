/** The copy command against the tools that people use today, each a whole process as they would start it. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { denseFileToFile, denseNbdToNbd, denseNbdToNull, slowServer } from './copy/dense.js';
import { incremental } from './copy/incremental.js';
import {
  manySmall,
  sparseEightTebibytes,
  sparseRandom,
  sparseServedEightTebibytes,
  sparseServedTebibyte,
  sparseTebibyte,
} from './copy/sparse.js';
import type { Workload } from './copy/workload.js';
import { type BenchOptions, type Result, race, report } from './support/bench.js';

const WORKLOADS: readonly Workload[] = [
  denseNbdToNbd,
  denseNbdToNull,
  sparseTebibyte,
  sparseEightTebibytes,
  sparseServedTebibyte,
  sparseServedEightTebibytes,
  sparseRandom,
  denseFileToFile,
  incremental,
  manySmall,
  slowServer,
];

export async function benchCopy(options: BenchOptions): Promise<void> {
  const { smoke, runs, only } = options;
  const results: Result[] = [];
  for (const { name, run } of WORKLOADS) {
    if (only !== undefined && !name.includes(only)) continue;
    const folder = await mkdtemp(join(process.env.LACUNA_BENCH_DIR ?? tmpdir(), 'lacuna-bench-'));
    try {
      await run({
        folder,
        smoke,
        race: async (contenders) => void results.push(...(await race(name, contenders, runs))),
      });
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
  report(results, options);
}
