import type { SideError } from '../../filters/index.js';

/**
 * What happens when a request of a job fails: `report`, the job fails; `stop`, it waits for a human; `ignore`, it goes on with the rest, and
 * tries that again later.
 */
export type JobErrorPolicy = 'report' | 'stop' | 'ignore';

/** The policy of each side. */
export interface ErrorPolicies {
  readonly onSourceError: JobErrorPolicy;
  readonly onTargetError: JobErrorPolicy;
}

/** The policy of the side that has failed. */
export function policyFor(
  { onSourceError, onTargetError }: ErrorPolicies,
  { side }: SideError,
): JobErrorPolicy {
  return side === 'source' ? onSourceError : onTargetError;
}
