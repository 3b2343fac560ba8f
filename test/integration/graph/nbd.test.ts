/** Nodes of a graph over our NBD server, written and read by QEMU's tools, while the graph changes. */
import { openBitmaps } from 'lacuna';
import { Graph } from 'lacuna/graph';
import { expect, test } from 'vitest';
import { serveDevice } from '../../support/nbd-server.js';
import { run } from '../../support/peers.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const file = (filename: string) => ({ driver: 'file', filename }) as const;
const throttle = { driver: 'throttle', 'node-name': 'slow', 'bytes-per-second': 1e12 } as const;

/** What is written before a filter comes in, while it is there, and after it has gone. */
const WRITES = [
  ['write -P 1 0 192k', 'write -P 2 300k 5k', 'flush'],
  ['write -P 3 64k 100k', 'write -z 320k 64k', 'discard 512k 128k', 'write -f -P 4 1000k 24k'],
  ['write -P 5 100k 1k', 'write -z -u 0 64k', 'write -P 6 2m 64k', 'flush'],
];

const flags = (commands: readonly string[]) => commands.flatMap((command) => ['-c', command]);

/** A chain whose middle image is shorter than the other two. */
async function makeChain(folder: string): Promise<void> {
  await run('mkdir', [folder]);
  const at = (name: string) => `${folder}/${name}`;
  await run('qemu-img', ['create', '-q', '-f', 'raw', at('base.raw'), '4M']);
  await run('qemu-io', ['-f', 'raw', ...flags(['write -P 9 0 4M']), at('base.raw')]);
  const make = (name: string, backing: string, format: string, size: string) =>
    run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', backing, '-F', format, at(name), size]);
  await make('middle.qcow2', 'base.raw', 'raw', '1M');
  await run('qemu-io', [...flags(['write -P 8 512k 256k']), at('middle.qcow2')]);
  await make('top.qcow2', 'middle.qcow2', 'qcow2', '4M');
}

test('QEMU writes a chain through a graph that changes meanwhile, and gets what it gets without', async () => {
  await makeChain('ours');
  await makeChain('theirs');
  const graph = new Graph();
  const image = { driver: 'qcow2', file: file('ours/top.qcow2') } as const;
  await graph.add({ 'node-name': 'top', ...image }, { writable: true });
  const device = await graph.addExport({ name: 'guest', node: 'top', writable: true });
  const { uri } = await serveDevice(device);
  const write = async (commands: readonly string[]) => {
    await run('qemu-io', ['-f', 'raw', ...flags(commands), uri]);
    await run('qemu-io', [...flags(commands), 'theirs/top.qcow2']);
  };
  await write(WRITES[0]);
  await graph.insertFilter({ filter: throttle, above: 'top' });
  await write(WRITES[1]);
  await graph.removeFilter('slow');
  await write(WRITES[2]);
  await run('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', uri, 'theirs/top.qcow2']);
  await graph.close();
  await run('qemu-img', ['check', '-q', 'ours/top.qcow2']);
  await run('qemu-img', ['compare', 'ours/top.qcow2', 'theirs/top.qcow2']);
});

test('QEMU reads the disk of a moment from a view, while the guest goes on', async () => {
  await makeChain('ours');
  await makeChain('before');
  const graph = new Graph();
  const image = { driver: 'qcow2', file: file('ours/top.qcow2') } as const;
  await graph.add({ 'node-name': 'top', ...image }, { writable: true });
  const guest = await graph.addExport({ name: 'guest', node: 'top', writable: true });
  const { uri: guestUri } = await serveDevice(guest);
  const write = (commands: readonly string[]) =>
    run('qemu-io', ['-f', 'raw', ...flags(commands), guestUri]);
  await write(WRITES[0]);
  await run('qemu-io', [...flags(WRITES[0]), 'before/top.qcow2']);

  await run('qemu-img', ['create', '-q', '-f', 'raw', 'scratch.raw', '4M']);
  await graph.add({ 'node-name': 'scratch', ...file('scratch.raw') }, { writable: true });
  const keep = { driver: 'copy-before-write', 'node-name': 'keep', target: 'scratch' } as const;
  await graph.insertFilter({ filter: keep, above: 'top' });
  await graph.add({ driver: 'snapshot-access', 'node-name': 'view', file: 'keep' });
  const view = await graph.addExport({ name: 'reader', node: 'view' });
  const { uri } = await serveDevice(view);
  await write(WRITES[1]);
  await run('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', uri, 'before/top.qcow2']);
  await write(WRITES[2]);
  await run('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', uri, 'before/top.qcow2']);
  await graph.close();
  await run('qemu-img', ['check', '-q', 'ours/top.qcow2']);
});

test('a bitmap of a node in a qcow2 image is one that QEMU has written, and goes on', async () => {
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', 'disk.qcow2', '4M']);
  await run('qemu-img', ['bitmap', '--add', '-g', '64k', 'disk.qcow2', 'b0']);
  await run('qemu-io', [...flags(['write -P 1 64k 64k']), 'disk.qcow2']);
  const graph = new Graph();
  const image = { driver: 'qcow2', file: file('disk.qcow2') } as const;
  await graph.add({ 'node-name': 'disk', ...image }, { writable: true });
  const device = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
  const { uri } = await serveDevice(device);
  await run('qemu-io', ['-f', 'raw', ...flags(['write -P 2 1M 1k', 'write -z 2M 128k']), uri]);
  await graph.close();
  await run('qemu-io', [...flags(['write -P 3 3M 64k']), 'disk.qcow2']);
  await run('qemu-img', ['check', '-q', 'disk.qcow2']);
  await using kept = await openBitmaps('disk.qcow2');
  const bitmap = await kept.bitmaps.load('b0');
  const ranges = [...bitmap.ranges()].map(({ offset, length }) => [
    offset / 65_536,
    length / 65_536,
  ]);
  expect(ranges).toEqual([
    [1, 1],
    [16, 1],
    [32, 2],
    [48, 1],
  ]);
});

test('QEMU writes a raw disk while nobody uses its node, and only reads it while somebody does', async () => {
  await run('qemu-img', ['create', '-q', '-f', 'raw', 'disk.raw', '1M']);
  const graph = new Graph();
  await graph.add({ 'node-name': 'disk', ...file('disk.raw') }, { writable: true });
  const qemu = (readOnly: boolean, ...commands: string[]) =>
    run('qemu-io', ['-f', 'raw', ...(readOnly ? ['-r'] : []), ...flags(commands), 'disk.raw']);
  await qemu(false, 'write -P 1 0 64k');
  const reader = await graph.addExport({ name: 'reader', node: 'disk' });
  await qemu(true, 'read -P 1 0 64k');
  await expect(qemu(false, 'write -P 2 0 64k')).rejects.toThrow(/lock/);
  const writer = await graph.addExport({ name: 'writer', node: 'disk', writable: true });
  await writer.write(0, new Uint8Array(65_536).fill(3));
  await expect(qemu(false, 'write -P 2 0 64k')).rejects.toThrow(/lock/);
  await writer.close();
  await expect(qemu(false, 'write -P 2 0 64k')).rejects.toThrow(/lock/);
  await qemu(true, 'read -P 3 0 64k');
  await reader.close();
  await qemu(false, 'write -P 4 0 64k');
  await graph.close();
});
