import { Graph, type MirrorJob, type MirrorOptions, type Root } from 'lacuna/graph';
import { pattern } from './fake-device.js';
import { ManualDisk, settled } from './manual-disk.js';

/** Bytes of a granule. */
export const G = 65_536;
/** Bytes of the disk, unless said. */
export const SIZE = 8 * G;

/** So many granules of a value. */
export function filled(value: number, granules = 1): Uint8Array {
  return new Uint8Array(granules * G).fill(value);
}

/** A disk in a graph, a guest that writes it, and a node to copy it to. */
export class MirrorSetup {
  readonly graph: Graph;
  readonly disk: ManualDisk;
  readonly target: ManualDisk;
  guest!: Root;

  private constructor(size: number, drainLimitMs: number) {
    this.graph = new Graph({ drainLimitMs });
    this.disk = new ManualDisk(size, 'disk');
    this.target = new ManualDisk(size, 'target');
    this.disk.isFree = true;
    this.target.isFree = true;
  }

  static async make({ size = SIZE, drainLimitMs = 2 ** 30 } = {}): Promise<MirrorSetup> {
    const setup = new MirrorSetup(size, drainLimitMs);
    const { graph, disk, target } = setup;
    await graph.addDevice('disk', disk.device);
    await graph.addDevice('target', target.device);
    setup.guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
    await setup.guest.write(0, pattern(size));
    target.bytes.fill(0xee);
    return setup;
  }

  run(options: Partial<MirrorOptions> = {}): MirrorJob {
    return this.graph.mirror({ node: 'disk', target: 'target', ...options });
  }

  /** Lets requests to the target wait, until `release`. */
  hold(): void {
    this.target.isFree = false;
  }

  release(): void {
    this.target.isFree = true;
    for (const request of [...this.target.held]) request.release();
  }

  get isEqual(): boolean {
    return Buffer.compare(this.disk.bytes, this.target.bytes) === 0;
  }

  /** Granules that a bitmap has. */
  async dirty(name = 'b', node = 'disk'): Promise<number[]> {
    const bitmap = await this.graph.node(node).bitmap(name);
    const granules = Array.from({ length: this.disk.bytes.length / G }, (_, i) => i);
    return granules.filter((granule) => bitmap.get(granule * G));
  }
}

/** Waits until the target of a job has caught up. */
export async function ready(job: MirrorJob): Promise<void> {
  while (!job.isReady) {
    if (job.state !== 'running' && job.state !== 'paused') await job;
    await settled();
  }
}
