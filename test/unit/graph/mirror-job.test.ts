import { Graph, type MirrorJob, type MirrorOptions, type Root } from 'lacuna/graph';
import { beforeEach, describe, expect, test } from 'vitest';
import { pattern } from '../../support/fake-device.js';
import { ManualDisk, settled } from '../../support/manual-disk.js';

const G = 65_536;
const SIZE = 8 * G;
const filled = (value: number, granules = 1) => new Uint8Array(granules * G).fill(value);

let graph: Graph;
let guest: Root;
let disk: ManualDisk;
let target: ManualDisk;

async function setUp(size = SIZE, drainLimitMs = 2 ** 30): Promise<void> {
  graph = new Graph({ drainLimitMs });
  disk = new ManualDisk(size, 'disk');
  target = new ManualDisk(size, 'target');
  disk.isFree = true;
  target.isFree = true;
  await graph.addDevice('disk', disk.device);
  await graph.addDevice('target', target.device);
  guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
  await guest.write(0, pattern(size));
  target.bytes.fill(0xee);
}

beforeEach(() => setUp());

function run(options: Partial<MirrorOptions> = {}): MirrorJob {
  return graph.mirror({ node: 'disk', target: 'target', ...options });
}

/** Waits until the target has caught up. */
async function ready(job: MirrorJob): Promise<void> {
  while (!job.isReady) {
    if (job.state === 'failed') await job;
    await settled();
  }
}

const SIDE_BY_SIDE = [{ parent: 'guest', child: 'root', node: 'disk' }];

describe('a mirror job', () => {
  test('copies the disk and what is written meanwhile, and the target comes into its place', async () => {
    const job = run();
    await ready(job);
    await guest.write(G, filled(1));
    await guest.zero(3 * G, G);
    const report = await job.complete();
    expect(report).toMatchObject({ completed: true, target: 'target', unreadBytes: 0 });
    expect(Buffer.compare(target.bytes, disk.bytes)).toBe(0);
    expect(graph.edges).toEqual([{ parent: 'guest', child: 'root', node: 'target' }]);
    expect(graph.nodes.map(({ name }) => name)).toEqual(['disk', 'target']);
    const before = disk.bytes.slice();
    await guest.write(0, filled(9));
    expect(target.bytes.subarray(0, G)).toEqual(filled(9));
    expect(Buffer.compare(disk.bytes, before)).toBe(0);
  });

  test('that is ready and is cancelled leaves a copy of that moment, and the disk in its place', async () => {
    const job = run();
    await ready(job);
    await guest.write(G, filled(1));
    await job.cancel();
    expect((await job).completed).toBe(false);
    expect(Buffer.compare(target.bytes, disk.bytes)).toBe(0);
    expect(graph.edges).toEqual(SIDE_BY_SIDE);
    await guest.write(0, filled(9));
    expect(target.bytes.subarray(0, G)).not.toEqual(filled(9));
  });
});
