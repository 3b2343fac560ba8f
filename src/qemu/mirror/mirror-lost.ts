import { LacunaError } from '../../errors/index.js';

/** The replica is not what the disk is, and what it lacks is still marked. */
export function mirrorLost(device: string, why: string, cause?: unknown): LacunaError {
  return new LacunaError(
    'ERR_MIRROR_LOST',
    `${device}: the mirror has ended before its time: ${why}. The replica does not equal the disk; begin the mirror again, which catches it up`,
    { device, cause, retryable: true },
  );
}
