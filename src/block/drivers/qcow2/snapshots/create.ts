import { LacunaError } from '../../../../errors/index.js';
import type { Snapshot } from '../../../../qcow2/index.js';
import type { BlockDevice } from '../../../contract/index.js';
import { ImageTables } from './image-tables.js';

/** What QEMU writes where it counts no instructions. */
const NO_ICOUNT = new Uint8Array(8).fill(0xff);

/**
 * Takes an internal snapshot of the disk as it is now.
 *
 * @param file the image's own, open for writing.
 * @param date when it is taken, as it shall stand in the image.
 * @throws LacunaError ERR_DEVICE_UNSUPPORTED where there is one of that name or id; what {@link ImageTables.open} throws.
 */
export async function createSnapshot(
  file: BlockDevice,
  name: string,
  { date, signal }: { readonly date: Date; readonly signal?: AbortSignal | undefined },
): Promise<Snapshot> {
  const tables = await ImageTables.open(file, signal);
  const { snapshots, active, header } = tables;
  if (snapshots.some((other) => other.name === name || other.id === name)) {
    const message = `${file.name} has a snapshot "${name}" already: choose another name, or delete that one`;
    throw new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: file.name });
  }
  const snapshot: Snapshot = {
    id: nextId(snapshots, name),
    name,
    l1Offset: 0,
    l1Size: active.entries,
    size: header.current.size,
    seconds: Math.floor(date.getTime() / 1000),
    nanoseconds: (date.getTime() % 1000) * 1e6,
    clock: 0n,
    stateSize: 0,
    extra: NO_ICOUNT,
  };
  tables.checkRoomFor([...snapshots, snapshot]);
  await tables.look(active, { raises: true });
  return tables.change(async () => {
    await tables.share(active);
    await tables.shareTables();
    const l1 = await tables.copyL1(active, snapshot.size);
    const taken = { ...snapshot, l1Offset: l1.offset, l1Size: l1.entries };
    await tables.nameSnapshots([...snapshots, taken]);
    return taken;
  });
}

/** Higher than all others, as QEMU numbers them; and no other snapshot has it as its name, nor gets it as that now. */
function nextId(snapshots: readonly Snapshot[], name: string): string {
  const numbers = snapshots.map(({ id }) => Number.parseInt(id, 10)).filter(Number.isSafeInteger);
  const taken = new Set([name, ...snapshots.flatMap((other) => [other.id, other.name])]);
  let next = numbers.reduce((most, number) => Math.max(most, number), 0) + 1;
  while (taken.has(String(next))) next++;
  return String(next);
}
