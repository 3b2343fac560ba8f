/** The copy command against the tools that people use today, each a whole process as they would start it. */
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
import { type BenchOptions, runWorkloads, type Workload } from './support/bench.js';

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

export const benchCopy = (options: BenchOptions): Promise<void> => runWorkloads(WORKLOADS, options);
