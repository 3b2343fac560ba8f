import { Graph, type Root } from 'lacuna/graph';
import { beforeEach, describe, expect, test } from 'vitest';
import { contentOf, fakeDevice, pattern } from '../../support/fake-device.js';
import { ManualDisk, settled } from '../../support/manual-disk.js';

const G = 65_536;
const SIZE = 8 * G;
const filled = (value: number, granules = 1) => new Uint8Array(granules * G).fill(value);

let graph: Graph;
let guest: Root;

/** Granules that are dirty in a bitmap of a node. */
async function dirty(name = 'b', node = 'disk'): Promise<number[]> {
  const bitmap = await graph.node(node).bitmap(name);
  const granules = Array.from({ length: SIZE / G }, (_, granule) => granule);
  return granules.filter((granule) => bitmap.get(granule * G));
}

async function read(root: Root): Promise<Uint8Array> {
  const bytes = new Uint8Array(root.size);
  await root.read(0, bytes);
  return bytes;
}

beforeEach(async () => {
  graph = new Graph({ drainLimitMs: 60_000 });
  await graph.addDevice('disk', fakeDevice(SIZE));
  guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
  await guest.write(0, pattern(4 * G));
});

describe('a full backup', () => {
  test('has the disk of its point in time, and begins a bitmap there', async () => {
    const before = await read(guest);
    const backup = await graph.openBackup({ nodes: ['disk'], bitmap: 'b' });
    const [disk] = backup.disks;
    expect([disk.name, disk.mode, disk.size]).toEqual(['disk', 'full', SIZE]);
    await guest.write(G, filled(7, 2));
    const seen = new Uint8Array(SIZE);
    for await (const { offset, length, status, data } of disk.extents()) {
      if (status === 'data') seen.set(data!, offset);
      expect([status, offset < 4 * G]).toEqual([status, status === 'data']);
      expect(data?.length ?? length).toBe(length);
    }
    expect(seen).toEqual(before);
    expect(await disk.totals()).toMatchObject({ size: SIZE, dataBytes: 4 * G });
    expect(disk.changes()).toBeUndefined();
    await backup.finish(() => {});
    expect(await dirty()).toEqual([1, 2]);
    expect(graph.nodes.map(({ name }) => name)).toEqual(['disk']);
    expect(graph.edges).toEqual([{ parent: 'guest', child: 'root', node: 'disk' }]);
  });

  test('that is given up leaves nothing', async () => {
    {
      await using backup = await graph.openBackup({ nodes: ['disk'], bitmap: 'b' });
      await guest.write(0, filled(7));
      expect(backup.signal.aborted).toBe(false);
    }
    expect(graph.node('disk').bitmaps).toEqual([]);
    expect(graph.nodes).toHaveLength(1);
  });
});

describe('an incremental backup', () => {
  const target = fakeDevice(SIZE);

  beforeEach(async () => {
    // The first backup, and some writes since.
    await target.write(0, await read(guest));
    await graph.changeBitmaps({ disk: [{ type: 'add', name: 'b' }] });
    await guest.write(2 * G, filled(1));
    await guest.zero(3 * G, G);
    await guest.write(6 * G + 5, Uint8Array.of(1));
  });

  test('takes what is dirty, as it was at its point in time', async () => {
    const before = await read(guest);
    const backup = await graph.openBackup({ nodes: ['disk'], bitmap: 'b' });
    const disk = backup.disk('disk');
    expect(disk.mode).toBe('incremental');
    await guest.write(0, filled(9, 3));
    const changes = disk.changes()!;
    expect([...changes.ranges()]).toEqual([
      { offset: 2 * G, length: 2 * G },
      { offset: 6 * G, length: G },
    ]);
    changes.free();
    const report = await disk.copyTo(target);
    expect(report.movedBytes + report.zeroedBytes).toBeLessThanOrEqual(3 * G);
    expect(await contentOf(target)).toEqual(before);
    await backup.finish(() => {});
    expect(await dirty()).toEqual([0, 1, 2]);
  });

  test('that is given up has lost nothing of what was dirty', async () => {
    const backup = await graph.openBackup({ nodes: ['disk'], bitmap: 'b' });
    await guest.write(0, filled(9));
    await backup.fail();
    await backup.fail();
    expect(await dirty()).toEqual([0, 2, 3, 6]);
    expect(graph.node('disk').bitmaps).toMatchObject([{ recording: true, busy: false }]);
    await expect(backup.accept()).rejects.toThrow('the backup has ended');
  });

  test('whose record fails is not ended, and can be given up', async () => {
    const backup = await graph.openBackup({ nodes: ['disk'], bitmap: 'b' });
    const failing = backup.finish(() => {
      throw new Error('the disk is full');
    });
    await expect(failing).rejects.toThrow('the disk is full');
    await backup.fail();
    expect(await dirty()).toEqual([2, 3, 6]);
  });

  test('keeps nothing of what it does not take, and gives back what was released', async () => {
    const scratch = new ManualDisk(SIZE, 'scratch');
    scratch.isFree = true;
    await graph.addDevice('scratch', scratch.device);
    const options = { nodes: ['disk'], bitmap: 'b', scratch: { disk: 'scratch' } };
    const backup = await graph.openBackup(options);
    const disk = backup.disk('disk');
    await disk.release(2 * G, G);
    await guest.write(0, filled(9, 4));
    expect([...scratch.bytes.subarray(0, 3 * G)].every((byte) => byte === 0)).toBe(true);
    expect(() => disk.copyTo(target)).toThrow('given back');
    await backup.fail();
    // What the caller has opened stays.
    expect(graph.nodes.map(({ name }) => name)).toEqual(['disk', 'scratch']);
  });
});

test('nodes of one backup are of one point in time, in every bitmap', async () => {
  const [one, two] = [new ManualDisk(SIZE, 'one'), new ManualDisk(SIZE, 'two')];
  await graph.addDevice('one', one.device);
  await graph.addDevice('two', two.device);
  const a = await graph.addExport({ name: 'a', node: 'one', writable: true });
  const b = await graph.addExport({ name: 'b', node: 'two', writable: true });
  const first = a.write(0, filled(1));
  await settled();
  const opening = graph.openBackup({ nodes: ['one', 'two'], bitmap: 'b' });
  await settled();
  // It comes behind the point in time, which waits for the first one.
  const second = b.write(0, filled(2));
  await settled();
  expect(two.held).toEqual([]);
  one.isFree = true;
  two.isFree = true;
  one.held[0].release();
  const [backup] = await Promise.all([opening, first, second]);
  const [seenOne, seenTwo] = backup.disks.map(({ device }) => device);
  const bytes = filled(0);
  await seenOne.read(0, bytes);
  expect(bytes).toEqual(filled(1));
  await seenTwo.read(0, bytes);
  expect(bytes).toEqual(filled(0));
  await backup.finish(() => {});
  expect([await dirty('b', 'one'), await dirty('b', 'two')]).toEqual([[], [0]]);
});

test('a view whose copies fail is lost, and the guest is not', async () => {
  const scratch = new ManualDisk(SIZE, 'scratch');
  await graph.addDevice('scratch', scratch.device);
  await graph.changeBitmaps({ disk: [{ type: 'add', name: 'b' }] });
  await guest.write(0, filled(1));
  const options = { nodes: ['disk'], bitmap: 'b', scratch: { disk: 'scratch' } };
  const backup = await graph.openBackup(options);
  await backup.check();
  const write = guest.write(0, filled(2));
  await settled();
  scratch.held[0].fail(false);
  await write;
  expect(backup.lost).toMatchObject({ code: 'ERR_VIEW_LOST' });
  const loop = backup.disk('disk').extents();
  await expect(loop.next()).rejects.toMatchObject({ code: 'ERR_VIEW_LOST' });
  await expect(backup.finish(() => {})).rejects.toMatchObject({ code: 'ERR_VIEW_LOST' });
  scratch.isFree = true;
  await backup.fail();
  expect(await dirty()).toEqual([0]);
});

describe('a backup is refused, and leaves nothing,', () => {
  test('of nodes that are not there, or named twice', async () => {
    for (const nodes of [[], ['disk', 'disk'], 'disk' as never]) {
      await expect(graph.openBackup({ nodes })).rejects.toThrow(TypeError);
    }
    const unknown = graph.openBackup({ nodes: ['disk', 'x'] });
    await expect(unknown).rejects.toMatchObject({ code: 'ERR_GRAPH_UNKNOWN' });
    await expect(graph.openBackup({ nodes: ['disk'], bitmpa: 'b' } as never)).rejects.toThrow(
      'did you mean "bitmap"',
    );
    expect(graph.nodes).toHaveLength(1);
  });

  test('with a bitmap that is in use', async () => {
    const backup = await graph.openBackup({ nodes: ['disk'], bitmap: 'b' });
    await backup.finish(() => {});
    const first = await graph.openBackup({ nodes: ['disk'], bitmap: 'b' });
    const nodes = graph.nodes.length;
    await expect(graph.openBackup({ nodes: ['disk'], bitmap: 'b' })).rejects.toMatchObject({
      code: 'ERR_BITMAP_BUSY',
    });
    expect(graph.nodes).toHaveLength(nodes);
    // Without a bitmap a second view goes beside the first one.
    const second = await graph.openBackup({ nodes: ['disk'] });
    await guest.write(0, filled(3));
    await second.finish(() => {});
    await first.finish(() => {});
    expect(graph.edges).toEqual([{ parent: 'guest', child: 'root', node: 'disk' }]);
  });

  test('while it is read', async () => {
    const backup = await graph.openBackup({ nodes: ['disk'] });
    const loop = backup.disk('disk').extents();
    await loop.next();
    await expect(backup.finish(() => {})).rejects.toThrow('still being read');
    await loop.return();
    await backup.finish(() => {});
  });
});

test('a graph that is closed gives up its backups', async () => {
  await graph.changeBitmaps({ disk: [{ type: 'add', name: 'b' }] });
  await guest.write(G, filled(1));
  const backup = await graph.openBackup({ nodes: ['disk'], bitmap: 'b' });
  await graph.close();
  expect(backup.signal.aborted).toBe(true);
  expect(graph.nodes).toEqual([]);
  await backup.fail();
});
