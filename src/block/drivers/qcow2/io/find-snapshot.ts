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

/**
 * The same before the snapshot is deleted, or the disk given up for it: then it must be clear which one is meant.
 *
 * @throws LacunaError ERR_DEVICE_OPEN where there is none; ERR_DEVICE_UNSUPPORTED where several are called that.
 */
export function findOneSnapshot(
  wanted: string,
  snapshots: readonly Snapshot[],
  image: string,
): Snapshot {
  const called = snapshots.filter(({ id, name }) => id === wanted || name === wanted);
  if (called.length < 2) return findSnapshot(wanted, snapshots, image);
  const names = called.map(({ id, name }) => `${id} (${name})`).join(', ');
  const message = `${image} has several snapshots that "${wanted}" may mean, by their id or their name: ${names}. Name the one by what the others are not called`;
  throw new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: image });
}
