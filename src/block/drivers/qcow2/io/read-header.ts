import {
  clusterSizeIn,
  cutShort,
  geometryOf,
  type Header,
  MAX_SNAPSHOT_TABLE_BYTES,
  parseHeader,
  parseSnapshots,
  type Snapshot,
  takeForFinished,
} from '../../../../qcow2/index.js';
import type { BlockDevice } from '../../../contract/index.js';

/** The first read: the header of all but a few images, and the cluster size of any. */
const FIRST_BYTES = 512;
const FIRST_SNAPSHOT_BYTES = 64 * 1024;

/**
 * Reads and checks the header of an image.
 *
 * @param unfinished the image is one that is being made, and nothing else.
 */
export async function readHeader(
  file: BlockDevice,
  { unfinished = false }: { readonly unfinished?: boolean } = {},
): Promise<Header> {
  const read = async (length: number) => {
    const bytes = await readStart(file, length);
    if (unfinished) takeForFinished(bytes, file.name);
    return bytes;
  };
  return parseHeader(await read(clusterSizeIn(await read(FIRST_BYTES), file.name)), file.name);
}

export async function readSnapshots(file: BlockDevice, header: Header): Promise<Snapshot[]> {
  return (await readSnapshotTable(file, header)).snapshots;
}

/** Reads the snapshot table, and says how many bytes it takes: that stands nowhere. */
export async function readSnapshotTable(
  file: Pick<BlockDevice, 'name' | 'end' | 'read'>,
  header: Header,
): Promise<{ snapshots: Snapshot[]; length: number }> {
  const { snapshotsOffset: offset, snapshotCount } = header;
  if (snapshotCount === 0) return { snapshots: [], length: 0 };
  const options = { header, geometry: geometryOf(header), image: file.name };
  const most = Math.min(MAX_SNAPSHOT_TABLE_BYTES, file.end - offset);
  for (let length = FIRST_SNAPSHOT_BYTES; ; length *= 4) {
    const bytes = new Uint8Array(Math.max(0, Math.min(length, most)));
    if (bytes.length > 0) await file.read(offset, bytes);
    const found = parseSnapshots(bytes, options);
    if (found !== undefined) return found;
    if (length >= most) throw cutShort(file.name, 'the snapshot table', { offset, end: file.end });
  }
}

async function readStart(file: BlockDevice, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(Math.min(length, file.size));
  await file.read(0, bytes);
  return bytes;
}
