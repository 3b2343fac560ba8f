import { createQcow2, openDevice } from 'lacuna';
import type { Root } from 'lacuna/graph';
import { Graph } from 'lacuna/graph';
import { NbdServer } from 'lacuna/nbd';
import { describe, expect, onTestFinished, test } from 'vitest';
import { ExtentList, Status } from '#dist/extent/index.js';
import { fakeDevice, pattern } from '../../support/fake-device.js';
import { keptDisk } from '../../support/kept-disk.js';
import { ManualDisk, settled } from '../../support/manual-disk.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const MIB = 1024 * 1024;
const SIZE = 4 * MIB;
const OLD = pattern(SIZE);

const setUp = (options: object = {}) => keptDisk(OLD, options);

/** Whether a view still shows what the disk was: compared here, as a failing comparison of so many bytes takes minutes. */
async function showsOld(view: Root): Promise<boolean> {
  const bytes = new Uint8Array(SIZE);
  await view.read(0, bytes);
  return Buffer.compare(bytes, OLD) === 0;
}

test('a large granule of which only the first half could be copied is not taken for copied', async () => {
  const graph = new Graph();
  const disk = new ManualDisk(SIZE, 'disk');
  disk.bytes.set(OLD);
  disk.isFree = true;
  await graph.addDevice('disk', disk.device);
  await createQcow2('target.qcow2', { size: SIZE, clusterSize: 2 * MIB });
  const file = { driver: 'file', filename: 'target.qcow2' } as const;
  await graph.add({ 'node-name': 'target', driver: 'qcow2', file }, { writable: true });
  const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
  const filter = { driver: 'copy-before-write', 'node-name': 'cbw', target: 'target' } as const;
  await graph.insertFilter({ filter, above: 'disk' });
  await graph.add({ driver: 'snapshot-access', 'node-name': 'view', file: 'cbw' });
  const view = await graph.addExport({ name: 'reader', node: 'view' });
  disk.isFree = false;
  const write = guest.write(0, new Uint8Array(10)).catch((error) => error.code);
  await settled();
  // A read that begins behind the first half fails, and one that is for all of it.
  while (disk.held[0].offset + disk.held[0].length <= MIB) {
    disk.held[0].release();
    await expect.poll(() => disk.held.length, { interval: 1 }).toBe(1);
  }
  disk.held[0].fail(false);
  expect(await write).toBe('ERR_DEVICE_IO');
  disk.isFree = true;
  await guest.write(0, new Uint8Array(10));
  expect(await showsOld(view)).toBe(true);
  await graph.close();
});

describe('a view that is lost', () => {
  test('tells no status either: a zero that is new would be taken for one of that moment', async () => {
    const { guest, view, target } = await setUp({ 'on-cbw-error': 'break-snapshot' });
    target.isFree = false;
    const write = guest.zero(0, MIB);
    await settled();
    target.held[0].fail(false);
    await write;
    await expect(view.extents(0, SIZE)).rejects.toMatchObject({ code: 'ERR_VIEW_LOST' });
  });
});

describe('a view that is lost while it is looked at', () => {
  const LOSING = { 'on-cbw-error': 'break-snapshot', 'cbw-timeout': 0.01 } as const;

  test('shows nothing of what was written meanwhile', async () => {
    const { guest, view, disk } = await setUp(LOSING);
    disk.isFree = false;
    const read = view.read(0, new Uint8Array(10)).catch((error) => error.code);
    await settled();
    const write = guest.write(0, new Uint8Array(10));
    // The copy waits for the read, longer than it may.
    await expect.poll(() => disk.held.map(({ what }) => what)).toEqual(['read', 'write']);
    disk.held[1].release();
    await write;
    disk.held[0].release();
    expect(await read).toBe('ERR_VIEW_LOST');
    disk.isFree = true;
  });

  test('tells nothing of the status that the disk has got meanwhile', async () => {
    await using graph = new Graph();
    const answers: (() => void)[] = [];
    const extents = async (offset: number, length: number) => {
      await new Promise<void>((resolve) => answers.push(resolve));
      const list = new ExtentList(offset);
      list.push(length, Status.hole | Status.zero);
      return [list];
    };
    await graph.addDevice('disk', fakeDevice(SIZE, { extents }));
    await graph.addDevice('target', new ManualDisk(SIZE).device);
    const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
    const filter = { driver: 'copy-before-write', 'node-name': 'cbw', target: 'target' } as const;
    await graph.insertFilter({ filter: { ...filter, ...LOSING }, above: 'disk' });
    await graph.add({ driver: 'snapshot-access', 'node-name': 'view', file: 'cbw' });
    const view = await graph.addExport({ name: 'reader', node: 'view' });
    const status = view.extents(0, SIZE).catch((error) => error.code);
    await expect.poll(() => answers.length).toBe(1);
    await guest.zero(0, MIB);
    answers[0]();
    expect(await status).toBe('ERR_VIEW_LOST');
  });
});

test('a filter is not closed while a copy that took too long is still under way', async () => {
  const { graph, guest, view, target } = await setUp({ 'cbw-timeout': 0.01 });
  target.isFree = false;
  const write = guest.write(0, new Uint8Array(10));
  await expect(write).rejects.toMatchObject({ cause: { code: 'ERR_TIMEOUT' } });
  await view.close();
  await graph.remove('view');
  await guest.close();
  let isRemoved = false;
  const removed = graph.removeFilter('cbw').then(() => {
    isRemoved = true;
  });
  await settled();
  expect(isRemoved).toBe(false);
  target.isFree = true;
  target.held[0].release();
  await removed;
});

test('a limit for copies that no timer can keep is refused', async () => {
  const { graph } = await setUp();
  const filter = { driver: 'copy-before-write', target: 'target', 'cbw-timeout': 3e6 } as const;
  const inserted = graph.insertFilter({ filter, above: 'cbw' });
  await expect(inserted).rejects.toThrow('cbw-timeout must be 2000000 seconds at most');
});

/** An export whose server can be cut off; it comes again at the same address. */
async function cuttableExport(image: string) {
  const device = await openDevice({ driver: 'file', filename: image }, { writable: true });
  const address = { type: 'unix', path: `${process.cwd()}/target.sock` } as const;
  const serve = async () => {
    const server = new NbdServer({ exports: [{ name: '', device }] });
    await server.listen(address);
    return server;
  };
  let server = await serve();
  onTestFinished(async () => {
    await server.close({ timeoutMs: 100 });
    await device.close();
  });
  const cut = async () => {
    await server.close({ timeoutMs: 0 });
    server = await serve();
  };
  return { cut, at: { driver: 'nbd', server: address, 'reconnect-delay': 60 } as const };
}

test.each(['behind a filter', 'below an image'])(
  'a view is lost where the connection to its copies was, %s, before they were durable: they may be gone',
  async (where) => {
    await createQcow2('target.qcow2', { size: SIZE, preallocation: 'full' });
    const { at, cut } = await cuttableExport('target.qcow2');
    const disk = fakeDevice(SIZE);
    await disk.write(0, OLD);
    const graph = new Graph();
    await graph.addDevice('disk', disk);
    const driver =
      where === 'below an image'
        ? ({ driver: 'qcow2' } as const)
        : ({ driver: 'throttle', 'requests-per-second': 1e9 } as const);
    await graph.add({ 'node-name': 'target', ...driver, file: at }, { writable: true });
    const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
    const filter = { driver: 'copy-before-write', 'node-name': 'cbw', target: 'target' } as const;
    await graph.insertFilter({ filter, above: 'disk' });
    await graph.add({ driver: 'snapshot-access', 'node-name': 'view', file: 'cbw' });
    const view = await graph.addExport({ name: 'reader', node: 'view' });
    await guest.write(0, new Uint8Array(10));
    expect(await showsOld(view)).toBe(true);
    await cut();
    await expect(view.read(0, new Uint8Array(10))).rejects.toMatchObject({
      code: 'ERR_VIEW_LOST',
    });
    // What is not durable is told of at the end too.
    await graph.close().catch(({ code }) => expect(code).toBe('ERR_NBD_UNFLUSHED'));
  },
);
