/** Every order in which two writes and one change may begin and end. */
import { Graph } from 'lacuna/graph';
import { expect, test } from 'vitest';
import { everyOrder } from '../../support/every-order.js';
import { ManualDisk } from '../../support/manual-disk.js';
import { playInOrder } from '../../support/play-in-order.js';

const SIZE = 4096;
const ONE = new Uint8Array(2048).fill(1);
const TWO = new Uint8Array(2048).fill(2);

/** Bytes that differ, as offsets. */
function differences(a: Uint8Array, b: Uint8Array): number[] {
  return [...a.keys()].filter((i) => a[i] !== b[i]);
}

test('a bitmap that is added beside two writes has all that changes after it', async () => {
  const orders = await everyOrder(async (choose) => {
    const graph = new Graph({ drainLimitMs: 2 ** 30 });
    const disk = new ManualDisk(SIZE);
    await graph.addDevice('disk', disk.device);
    const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
    let before = new Uint8Array();
    await playInOrder(
      choose,
      [disk],
      [
        () => guest.write(0, ONE),
        () => guest.write(1024, TWO),
        () =>
          graph.changeBitmaps({ disk: [{ type: 'add', name: 'a', granularity: 512 }] }).then(() => {
            before = disk.bytes.slice();
          }),
      ],
    );
    const bitmap = await graph.node('disk').bitmap('a');
    const missed = differences(before, disk.bytes).filter((at) => !bitmap.get(at));
    expect(missed).toEqual([]);
    await graph.close();
  });
  expect(orders).toBe(28);
});

test('two writes and a filter that comes in leave what the writes leave in some order', async () => {
  const seen = new Set<string>();
  const orders = await everyOrder(async (choose) => {
    const graph = new Graph({ drainLimitMs: 2 ** 30 });
    const disk = new ManualDisk(SIZE);
    await graph.addDevice('disk', disk.device);
    const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
    const filter = { driver: 'delay', milliseconds: 0, 'node-name': 'filter' } as const;
    await playInOrder(
      choose,
      [disk],
      [
        () => guest.write(0, ONE),
        () => guest.write(1024, TWO),
        () => graph.insertFilter({ filter, above: 'disk' }),
      ],
    );
    expect(guest.node.name).toBe('filter');
    seen.add(disk.bytes.subarray(0, 3072).join());
    disk.isFree = true;
    await graph.close();
  });
  const serial = [
    [0, ONE, 1024, TWO],
    [1024, TWO, 0, ONE],
  ].map((writes) => {
    const bytes = new Uint8Array(3072);
    bytes.set(writes[1] as Uint8Array, writes[0] as number);
    bytes.set(writes[3] as Uint8Array, writes[2] as number);
    return bytes.join();
  });
  expect([...seen].sort()).toEqual(serial.sort());
  expect(orders).toBeGreaterThan(28);
});

test('no write lands on a node after another one has come in its place', async () => {
  await everyOrder(async (choose) => {
    const graph = new Graph({ drainLimitMs: 2 ** 30 });
    const [old, fresh] = [new ManualDisk(SIZE, 'old'), new ManualDisk(SIZE, 'fresh')];
    await graph.addDevice('old', old.device);
    await graph.addDevice('fresh', fresh.device);
    const guest = await graph.addExport({ name: 'guest', node: 'old', writable: true });
    const landed = { old: new Uint8Array(), count: 0 };
    const write = (offset: number, bytes: Uint8Array) => () => guest.write(offset, bytes);
    await playInOrder(
      choose,
      [old, fresh],
      [
        write(0, ONE),
        write(2048, TWO),
        () =>
          graph
            .replaceChild({
              ...{ parent: 'guest', child: 'root', expected: 'old', replacement: 'fresh' },
              unsafe: true,
            })
            .then(() => {
              landed.old = old.bytes.slice();
            }),
      ],
    );
    expect(old.bytes).toEqual(landed.old);
    // Each was carried out once, on one of the two.
    for (const at of [0, 2048]) {
      expect([old, fresh].filter(({ bytes }) => bytes[at] !== 0)).toHaveLength(1);
    }
    await graph.close();
  });
});
