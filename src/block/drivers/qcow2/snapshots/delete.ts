import type { Snapshot } from '../../../../qcow2/index.js';
import type { BlockDevice } from '../../../contract/index.js';
import { findOneSnapshot } from '../io/index.js';
import { ImageTables } from './image-tables.js';

/**
 * Deletes an internal snapshot, and gives back what only that held.
 *
 * @param file the image's own, open for writing.
 * @param wanted its id or its name.
 * @throws LacunaError ERR_DEVICE_OPEN where there is none, ERR_DEVICE_UNSUPPORTED where several are called that; what {@link ImageTables.open} throws.
 */
export async function deleteSnapshot(
  file: BlockDevice,
  wanted: string,
  { signal }: { readonly signal?: AbortSignal | undefined },
): Promise<Snapshot> {
  const tables = await ImageTables.open(file, signal);
  const { snapshots, active } = tables;
  const snapshot = findOneSnapshot(wanted, snapshots, file.name);
  const place = { offset: snapshot.l1Offset, entries: snapshot.l1Size };
  await tables.look(place, { raises: false });
  await tables.look(active, { raises: false });
  return tables.change(async () => {
    await tables.nameSnapshots(snapshots.filter((other) => other !== snapshot));
    await tables.giveUp(place);
    await tables.markAlone();
    return snapshot;
  });
}
