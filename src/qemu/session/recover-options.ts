import { optionCheck } from '../../util/index.js';
import { checkGeneration } from '../state/index.js';

/** What recovering has to know. */
export interface RecoverOptions {
  /**
   * The generation in the newest manifest, null where there is no backup. A session whose process has died has succeeded
   * if this is its generation; then the bitmaps that it began from are removed, else those that it added.
   */
  readonly generation: string | null;
  /**
   * Take away as well what sessions have left whose folders are not in this folder, because it was lost or is elsewhere.
   * Only for when no other backup of the machine is running. Default false.
   */
  readonly unknown?: boolean | undefined;
}

/** What was found and done. */
export interface RecoverReport {
  /** Prefixes of the sessions that were cleaned up. */
  readonly recovered: readonly string[];
  /** Generations whose bitmaps were removed, where they were there. */
  readonly removedGenerations: readonly string[];
  /** Prefixes of sessions that have something in the machine and no folder here. */
  readonly unknown: readonly string[];
  /** Prefixes of sessions that are running. */
  readonly running: readonly string[];
  /** What could not be done. */
  readonly warnings: readonly string[];
}

const check = optionCheck<RecoverOptions>({
  generation: { needed: 'that of the newest manifest, or null where there is none' },
  unknown: 'flag',
});

export function checkRecoverOptions(owner: string, options: RecoverOptions): void {
  check(owner, options);
  if (options.generation !== null) checkGeneration(owner, options.generation);
}
