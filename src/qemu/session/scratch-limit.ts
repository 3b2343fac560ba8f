import { LacunaError } from '../../errors/index.js';
import { counted } from '../../util/index.js';

/** A scratch image that holds nothing has some 200 KiB. */
export const LEAST_SCRATCH = 2 ** 20;

/** Of what is free, so much may be taken for scratch images. */
const SHARE = 0.8;

/**
 * Bytes that each scratch image may have, where the caller does not say.
 *
 * @throws LacunaError ERR_SCRATCH_FULL where the folder has no room: for QEMU, a limit of 0 is none.
 */
export function scratchLimit(folder: string, freeBytes: number, disks: number): number {
  const limit = Math.trunc((freeBytes * SHARE) / disks);
  if (limit >= LEAST_SCRATCH) return limit;
  throw new LacunaError(
    'ERR_SCRATCH_FULL',
    `${folder}: ${freeBytes} bytes are free here, which is too little for the scratch images of ${counted(disks, 'disk')}; free some, or choose another folder`,
    { device: folder, retryable: true },
  );
}

/**
 * Bytes that QEMU may push into the same folder.
 *
 * @throws LacunaError ERR_SCRATCH_FULL where nothing is left for it
 */
export function landingLimit(folder: string, freeBytes: number, scratchBytes: number): number {
  const limit = Math.trunc(freeBytes * SHARE) - scratchBytes;
  if (limit >= LEAST_SCRATCH) return limit;
  throw new LacunaError(
    'ERR_SCRATCH_FULL',
    `${folder}: of ${freeBytes} bytes that are free here, the scratch images may take ${scratchBytes}, which leaves too little for what QEMU pushes; free some, choose another folder, or fetch by pull`,
    { device: folder, retryable: true },
  );
}
