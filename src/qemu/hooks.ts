/** What a caller has done before and after a backup of a running machine. */
import type { BackupReport } from '../repository/index.js';

/** How a backup has ended. */
export type BackupOutcome =
  /** There is a new point. */
  | { readonly done: true; readonly report: BackupReport }
  /** There is none. */
  | { readonly done: false; readonly error: Error };

/** Called around a backup, once each. */
export interface BackupHooks {
  /**
   * Called when what earlier backups have left is gone, but for the view of one that is gone on with, and before anything is
   * begun in the machine, so also before the guest is frozen. What it throws ends the backup, and takes that view away.
   */
  readonly before?: (() => Promise<void> | void) | undefined;
  /**
   * Called when the backup has ended, well or not, and nothing of it is in the machine any more; also where `before` has
   * failed, and where the backup was stopped or aborted. What it throws is a warning of a backup that is done, and is added
   * to the message of one that has failed.
   */
  readonly after?: ((outcome: BackupOutcome) => Promise<void> | void) | undefined;
}

/** Does `work` between both hooks. */
export async function betweenHooks(
  { before, after }: BackupHooks,
  work: () => Promise<BackupReport>,
): Promise<BackupReport> {
  let report: BackupReport;
  try {
    await before?.();
    report = await work();
  } catch (error) {
    const failure = error as Error;
    await tell(after, { done: false, error: failure }, (what) => {
      failure.message += ` (and ${what})`;
    });
    throw failure;
  }
  const warnings = [...report.warnings];
  await tell(after, { done: true, report }, (what) => warnings.push(what));
  return { ...report, warnings };
}

async function tell(
  after: BackupHooks['after'],
  outcome: BackupOutcome,
  failed: (what: string) => void,
): Promise<void> {
  try {
    await after?.(outcome);
  } catch (error) {
    failed(`what was to be done after it has failed: ${(error as Error).message}`);
  }
}
