import { LacunaError } from '../../../../errors/index.js';
import type { Snapshot } from '../../../../qcow2/index.js';

/**
 * The snapshot of an image that is wanted: by id, or else by name, as QEMU looks.
 *
 * @throws LacunaError ERR_DEVICE_OPEN where there is none.
 */
export function findSnapshot(
  wanted: string,
  snapshots: readonly Snapshot[],
  image: string,
): Snapshot {
  const found =
    snapshots.find(({ id }) => id === wanted) ?? snapshots.find(({ name }) => name === wanted);
  if (found !== undefined) return found;
  const names = snapshots.map(({ id, name }) => `${id} (${name})`).join(', ') || 'none';
  const message = `${image} has no snapshot "${wanted}"; it has: ${names}`;
  throw new LacunaError('ERR_DEVICE_OPEN', message, { device: image });
}
