import type { MadeFile } from './unfinished-file.js';

/** What a resume file says beside what remains. */
export interface CopyState {
  /** What tells this copy from others: see resume-binding.ts. */
  readonly binding: Readonly<Record<string, string>>;
  /** The unfinished file, where the target is one that is being made. */
  readonly made?: MadeFile;
  /** What remains reads as zero in the target, unless it was written after this moment. */
  readonly targetIsZero: boolean;
  /** Bytes that the whole copy had to deal with, as in its report. */
  readonly plannedBytes: number;
  /** Bytes that the whole copy had to move or zero. */
  readonly totalBytes: number;
}
