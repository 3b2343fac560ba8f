import { Graph, type Root } from 'lacuna/graph';
import { ManualDisk } from './manual-disk.js';

/** A disk whose old content is kept, and a view of that. */
export interface KeptDisk {
  readonly graph: Graph;
  readonly disk: ManualDisk;
  readonly target: ManualDisk;
  /** Writes the disk through the filter `cbw`. */
  readonly guest: Root;
  readonly view: Root;
}

/**
 * Begins to keep a disk.
 *
 * @param old what the disk has.
 * @param options of the filter.
 */
export async function keptDisk(old: Uint8Array, options: object = {}): Promise<KeptDisk> {
  const graph = new Graph({ drainLimitMs: 2 ** 30 });
  const [disk, target] = ['disk', 'target'].map((name) => new ManualDisk(old.length, name));
  disk.bytes.set(old);
  disk.isFree = true;
  target.isFree = true;
  await graph.addDevice('disk', disk.device);
  await graph.addDevice('target', target.device);
  const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
  const filter = { driver: 'copy-before-write', 'node-name': 'cbw', target: 'target' } as const;
  await graph.insertFilter({ filter: { ...filter, ...options }, above: 'disk' });
  await graph.add(
    { driver: 'snapshot-access', 'node-name': 'view', file: 'cbw' },
    { writable: true },
  );
  const view = await graph.addExport({ name: 'reader', node: 'view', writable: true });
  return { graph, disk, target, guest, view };
}
