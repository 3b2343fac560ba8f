import type { BenchOptions, Contender } from '../support/bench.js';

/** One row group of the table. */
export interface Workload {
  readonly name: string;
  /** Makes what is copied, lets `race` run the contenders, of which the first is ours, and takes it away again. */
  run(context: WorkloadContext): Promise<void>;
}

export interface WorkloadContext extends Pick<BenchOptions, 'smoke'> {
  /** Where files may be made; removed afterwards. */
  readonly folder: string;
  race(contenders: readonly Contender[]): Promise<void>;
}
