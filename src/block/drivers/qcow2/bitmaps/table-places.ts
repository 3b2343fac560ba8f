import { type BitmapEntry, corrupt, type Header, validBitmaps } from '../../../../qcow2/index.js';

/** All tables of an image of which it has one, or one for each snapshot or bitmap. */
interface Tables {
  readonly header: Header;
  readonly image: string;
  readonly snapshots: readonly { readonly l1Offset: number; readonly l1Size: number }[];
  /** Bytes of the snapshot table. */
  readonly snapshotBytes: number;
  readonly bitmaps: readonly Pick<BitmapEntry, 'tableOffset' | 'tableEntries'>[];
}

/**
 * Refuses an image two of whose tables share bytes: who gives one of them up would free the other one, and who writes it would
 * write both. Snapshots and bitmaps could also name one by thousands, and have it read as often.
 *
 * @throws LacunaError ERR_QCOW2_CORRUPT
 */
export function refuseOverlaps({ header, image, snapshots, snapshotBytes, bitmaps }: Tables): void {
  const clusterSize = 2 ** header.clusterBits;
  const { l1Offset, l1Size, refcountTableOffset, refcountTableClusters } = header;
  const directory = validBitmaps(header);
  const places = [
    [0, clusterSize],
    [refcountTableOffset, refcountTableClusters * clusterSize],
    [l1Offset, l1Size * 8],
    [header.snapshotsOffset, snapshotBytes],
    ...snapshots.map((snapshot) => [snapshot.l1Offset, snapshot.l1Size * 8]),
    [directory?.directoryOffset ?? 0, directory?.directorySize ?? 0],
    ...bitmaps.map(({ tableOffset, tableEntries }) => [tableOffset, tableEntries * 8]),
  ]
    .filter(([, length]) => length > 0)
    .sort(([a], [b]) => a - b);
  const shared = places.find(
    ([offset], i) => i > 0 && offset < places[i - 1][0] + places[i - 1][1],
  );
  if (shared === undefined) return;
  throw corrupt(image, `a table at ${shared[0]}, inside another one`, shared[0]);
}
