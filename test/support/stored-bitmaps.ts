import { openBitmaps } from 'lacuna';
import type { Peers } from './peers.js';
import { QmpConnection } from './qmp.js';

/** A bitmap that an image keeps; the digest is that of its bits, where it has any. */
export interface StoredBitmap {
  name: string;
  granularity: number;
  recording: boolean;
  inconsistent?: boolean;
  digest?: string;
}

let daemons = 0;

/** A daemon of QEMU with an image as node `disk`. */
export async function imageDaemon(
  peers: Peers,
  path: string,
  { readOnly = false, rest = [] as string[] } = {},
) {
  const socket = `${path}-${daemons++}.sock`;
  const peer = await peers.storageDaemon([
    ...['--chardev', `socket,id=m,path=${socket},server=on,wait=off`, '--monitor', 'chardev=m'],
    ...['--blockdev', `driver=file,node-name=file,filename=${path},read-only=${readOnly}`],
    ...['--blockdev', `driver=qcow2,node-name=disk,file=file,read-only=${readOnly}`],
    ...rest,
  ]);
  return { peer, monitor: await QmpConnection.open(socket) };
}

/** The bitmaps of an image as QEMU loads them, by name. */
export async function bitmapsByQemu(peers: Peers, path: string): Promise<StoredBitmap[]> {
  const { peer, monitor } = await imageDaemon(peers, path, { readOnly: true });
  const found = await bitmapsOfNode(monitor);
  await monitor.close();
  await peer.stop();
  return found;
}

/** The bitmaps of node `disk`, by name. */
export async function bitmapsOfNode(monitor: QmpConnection): Promise<StoredBitmap[]> {
  const nodes = (await monitor.execute('query-named-block-nodes', { flat: true })) as {
    'node-name': string;
    'dirty-bitmaps'?: StoredBitmap[];
  }[];
  const node = nodes.find((each) => each['node-name'] === 'disk');
  const found: StoredBitmap[] = [];
  for (const { name, granularity, recording, inconsistent } of node?.['dirty-bitmaps'] ?? []) {
    if (inconsistent) {
      found.push({ name, granularity, recording, inconsistent });
      continue;
    }
    const args = { node: 'disk', name };
    const answer = await monitor.execute('x-debug-block-dirty-bitmap-sha256', args);
    const { sha256 } = answer as { sha256: string };
    found.push({ name, granularity, recording, digest: sha256 });
  }
  return sorted(found);
}

/** The bitmaps of an image as we load them, by name. */
export async function bitmapsByUs(path: string): Promise<StoredBitmap[]> {
  await using image = await openBitmaps(path);
  const found: StoredBitmap[] = [];
  for (const { name, granularity, recording, inconsistent } of image.bitmaps.list()) {
    if (inconsistent) {
      found.push({ name, granularity, recording, inconsistent });
      continue;
    }
    using bits = await image.load(name);
    found.push({ name, granularity, recording, digest: bits.digest() });
  }
  return sorted(found);
}

function sorted(bitmaps: StoredBitmap[]): StoredBitmap[] {
  return bitmaps.sort((a, b) => (a.name < b.name ? -1 : 1));
}
