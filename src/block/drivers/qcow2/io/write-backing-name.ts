import {
  type Extensions,
  encodeHeader,
  findExtensions,
  type Header,
} from '../../../../qcow2/index.js';
import { alignUp, viewOf, writeU64 } from '../../../../util/index.js';
import type { BackingName } from '../../../contract/index.js';
import type { HostFile } from './host-file.js';

/**
 * Makes an image name another backing file, or none, durably. The new name goes where nothing stood, and the sector that
 * says so last: a crash leaves the old name or the new one, but where extensions must move to make room for a format.
 *
 * @param header as it is in the file; nobody else changes that meanwhile.
 * @returns the header as it is then.
 * @throws LacunaError ERR_QCOW2_UNSUPPORTED where the name does not fit into the first cluster; nothing is written then.
 */
export async function writeBackingName(
  host: HostFile,
  header: Header,
  backing: BackingName | null,
): Promise<Header> {
  const changed = withBackingName(header, backing);
  await writeHeader(host, changed);
  return changed;
}

/**
 * Writes the header of an image anew, with its extensions and the name of its backing file: what lies behind the first
 * sector, then that. Nobody else changes it meanwhile.
 *
 * @throws LacunaError ERR_QCOW2_UNSUPPORTED where it does not fit into the first cluster; nothing is written then.
 */
export async function writeHeader(host: HostFile, header: Header): Promise<void> {
  const fresh = encodeHeader(header, host.name);
  const name = Buffer.from(header.backingFile ?? '');
  const rest = fresh.length - name.length;

  const cluster = new Uint8Array(2 ** header.clusterBits);
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

export function withBackingName(header: Header, backing: BackingName | null): Header {
  const extensions: Extensions = { ...header.extensions, backingFormat: backing?.format };
  return { ...header, backingFile: backing?.filename, extensions };
}

/** Behind the old name if there is room, or else where the extensions end. */
function placeFor(cluster: Uint8Array, rest: number, length: number): number {
  const { limit } = findExtensions(cluster);
  const oldEnd = limit === cluster.length ? 0 : limit + viewOf(cluster).getUint32(16);
  const at = alignUp(Math.max(rest, oldEnd), 8);
  return at + length <= cluster.length ? at : rest;
}
