import { type Extensions, encodeHeader, findExtensions } from '../../../../qcow2/index.js';
import { alignUp, viewOf, writeU64 } from '../../../../util/index.js';
import type { BlockDevice } from '../../../contract/index.js';
import { type BackingName, HostFile, readHeader } from '../io/index.js';
import { repairRefcounts } from '../repair/index.js';
import { checkWritable } from '../write/index.js';

/**
 * Makes an image name another backing file, or none, durably. The new name goes where nothing stood, and the sector that
 * says so last: a crash leaves the old name or the new one, but where extensions must move to make room for a format.
 *
 * @param file the image's own, open for writing.
 * @throws LacunaError ERR_QCOW2_UNSUPPORTED where the name does not fit into the first cluster.
 */
export async function setBackingFile(
  file: BlockDevice,
  backing: BackingName | null,
): Promise<void> {
  const header = await repairRefcounts(file, await readHeader(file));
  checkWritable(header, file.name);
  const extensions: Extensions = { ...header.extensions, backingFormat: backing?.format };
  const changed = { ...header, backingFile: backing?.filename, extensions };
  const fresh = encodeHeader(changed, file.name);
  const name = Buffer.from(backing?.filename ?? '');
  const rest = fresh.length - name.length;

  const cluster = new Uint8Array(2 ** header.clusterBits);
  const host = new HostFile(file);
  await host.read(0, cluster);
  const at = placeFor(cluster, rest, name.length);
  cluster.set(fresh.subarray(0, rest));
  cluster.set(name, at);
  if (name.length > 0) writeU64(viewOf(cluster), 8, at);
  const end = Math.max(rest, at + name.length);
  if (end > host.unit) await host.writeSpan(0, cluster, { from: host.unit, to: end });
  await host.flush();
  await host.writeSpan(0, cluster, { from: 0, to: host.unit });
  await host.flush();
}

/** Behind the old name if there is room, or else where the extensions end. */
function placeFor(cluster: Uint8Array, rest: number, length: number): number {
  const { limit } = findExtensions(cluster);
  const oldEnd = limit === cluster.length ? 0 : limit + viewOf(cluster).getUint32(16);
  const at = alignUp(Math.max(rest, oldEnd), 8);
  return at + length <= cluster.length ? at : rest;
}
