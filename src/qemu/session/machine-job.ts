/** What all work on a running machine begins and ends with. */
import { Job, type JobControl, type JobCounts, type JobProgress } from '../../job/index.js';
import type { MachineDisk } from '../inspect/index.js';
import type { Journal, SessionFolder, SessionNames } from '../state/index.js';
import type { Target } from './target.js';

/** What a machine's job does after everything else. */
interface MachineWork<Report, Progress extends JobProgress> {
  run(control: JobControl): Promise<Report>;
  counted(): JobCounts<Progress>;
}

interface MachineJobOptions<Report, Progress extends JobProgress> {
  /** What it is, for messages: `a mirror`. */
  readonly what: string;
  readonly signal?: AbortSignal | undefined;
  readonly rate?: number | undefined;
  /** What is done before anything else; its warnings come first. */
  readonly before: () => Promise<readonly string[]>;
  readonly work: MachineWork<Report, Progress>;
}

/** A job on a running machine. */
export function machineJob<
  Report extends { readonly warnings: readonly string[] },
  Progress extends JobProgress = JobProgress,
>(options: MachineJobOptions<Report, Progress>): Job<Report, Progress> {
  const { what, rate, signal, before, work } = options;
  return new Job<Report, Progress>({
    ...{ what, rate, signal },
    work: async (control) => {
      const warnings = await before();
      const report = await work.run(control);
      return { ...report, warnings: [...warnings, ...report.warnings] };
    },
    counted: () => work.counted(),
  });
}

/** How QEMU is reached, and what the disks are; the work may add bitmaps, but none that a backup could begin from. */
export function journalOf(
  { nbd, address }: Target,
  { prefix }: SessionNames,
  folder: SessionFolder,
  disks: readonly MachineDisk[],
): Journal {
  return {
    format: 'lacuna backup session',
    version: 1,
    prefix,
    monitor: address,
    nbd: { server: nbd ?? { type: 'unix', path: folder.socket }, isOurs: nbd === undefined },
    keepsBase: true,
    disks: disks.map(({ name, qdev, file, node }) => ({ name, qdev, file, node })),
    phase: 'begun',
  };
}

/** Says in an error what could not be taken away behind it. */
export function noteLeft(error: Error, failure: unknown): void {
  error.message += ` (and something is left in the machine: ${(failure as Error).message})`;
}
