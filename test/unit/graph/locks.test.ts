import fs, { closeSync, openSync, renameSync, truncateSync } from 'node:fs';
import { createQcow2, createRawFile, type Device, openDevice } from 'lacuna';
import { Graph } from 'lacuna/graph';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { systemCalls } from '#dist/block/drivers/file/ffi.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const SIZE = 1024 * 1024;
const file = (filename: string) => ({ driver: 'file', filename }) as const;

let graph: Graph;

/** A raw disk that may be written, and that nobody uses. */
beforeEach(async () => {
  await createRawFile('disk.raw', SIZE);
  graph = new Graph();
  await graph.add({ 'node-name': 'disk', ...file('disk.raw') }, { writable: true });
});

/** Bytes of a file that QEMU's programs lock: who writes it, and who does not let others read or write it. */
const [WRITES, RESIZES, NO_READING, NO_WRITING, NO_RESIZING] = [101, 103, 200, 201, 203];

/** What another program can do with a file: an opening of its own sees what the others have locked. */
function others(path = 'disk.raw'): string {
  const fd = openSync(path, 'r');
  const isLocked = (...bytes: number[]) =>
    bytes.some((byte) => systemCalls()!.isByteLocked(fd, byte) === 1);
  try {
    if (isLocked(WRITES, RESIZES, NO_READING)) return 'nothing';
    return isLocked(NO_WRITING, NO_RESIZING) ? 'read' : 'write';
  } finally {
    closeSync(fd);
  }
}

const guest = (writable: boolean, more: object = {}) =>
  graph.addExport({ name: 'guest', node: 'disk', writable, ...more });

/** Another program that writes the disk. */
const writer = (): Promise<Device> => openDevice('disk.raw', { writable: true });

describe('the lock of a file', () => {
  test('follows what its node is used for', async () => {
    expect(others()).toBe('write');
    const written = await guest(true);
    expect(others()).toBe('nothing');
    await written.close();
    expect(others()).toBe('write');
    const read = await guest(false);
    expect(others()).toBe('read');
    await graph.insertFilter({
      filter: { driver: 'delay', 'node-name': 'slow', milliseconds: 0 },
      above: 'disk',
    });
    const second = await graph.addExport({ name: 'second', node: 'slow', writable: true });
    expect(others()).toBe('nothing');
    await second.close();
    expect(others()).toBe('read');
    await read.close();
    expect(others()).toBe('write');
    await graph.close();
  });

  test('keeps others from writing while its node has bitmaps, which would lack that', async () => {
    await graph.changeBitmaps({ disk: [{ type: 'add', name: 'b' }] });
    expect(others()).toBe('read');
    await graph.changeBitmaps({ disk: [{ type: 'remove', name: 'b' }] });
    expect(others()).toBe('write');
    await graph.close();
  });

  test('lets others read what has become a lower layer', async () => {
    const written = await guest(true);
    const overlay = { 'node-name': 'top', driver: 'qcow2', file: file('top.qcow2') } as const;
    await graph.create({ image: overlay, over: 'disk' });
    await graph.snapshot({ disks: [{ node: 'disk', overlay }] });
    await written.write(0, new Uint8Array(512).fill(1));
    expect(others()).toBe('read');
    expect(others('top.qcow2')).toBe('nothing');
    await graph.close();
  });

  test('is for as long as a job writes its node', async () => {
    await createRawFile('target.raw', SIZE);
    await graph.add({ 'node-name': 'target', ...file('target.raw') }, { writable: true });
    const job = graph.mirror({ node: 'disk', target: 'target' });
    await expect.poll(() => job.isReady).toBe(true);
    expect(others('target.raw')).toBe('nothing');
    await job.cancel();
    expect(others('target.raw')).toBe('write');
    await graph.close();
  });

  test('is that of an image as long as this has the node as its file', async () => {
    await createQcow2('image.qcow2', { size: SIZE });
    await graph.add({ 'node-name': 'raw', ...file('image.qcow2') }, { writable: true });
    expect(others('image.qcow2')).toBe('write');
    await graph.add({ 'node-name': 'image', driver: 'qcow2', file: 'raw' }, { writable: true });
    expect(others('image.qcow2')).toBe('nothing');
    await graph.remove('image');
    expect(others('image.qcow2')).toBe('write');
    await graph.close();
  });

  test('is that of the writer when an image that was only read is written', async () => {
    await createQcow2('image.qcow2', {
      size: SIZE,
      backing: { filename: 'disk.raw', format: 'raw' },
    });
    await graph.add({ 'node-name': 'raw', ...file('image.qcow2') }, { writable: true });
    await graph.add({ 'node-name': 'image', driver: 'qcow2', file: 'raw', backing: 'disk' });
    expect([others('image.qcow2'), others()]).toEqual(['read', 'read']);
    const job = graph.stream({ node: 'image' });
    job.pause();
    await expect.poll(() => graph.users.length).toBe(1);
    expect(others('image.qcow2')).toBe('nothing');
    job.resume();
    await job;
    expect(others('image.qcow2')).toBe('read');
    await graph.close();
  });
});

describe('where another program writes the file', () => {
  test('an export, a job and a layer over it are refused, and nothing is changed', async () => {
    await createQcow2('top.qcow2', {
      size: SIZE,
      backing: { filename: 'disk.raw', format: 'raw' },
    });
    const before = JSON.stringify(graph);
    const other = await writer();
    const locked = { code: 'ERR_DEVICE_LOCKED' };
    await expect(guest(true)).rejects.toMatchObject(locked);
    const target = { driver: 'memory', size: SIZE } as const;
    await expect(graph.mirror({ node: 'disk', target })).rejects.toMatchObject(locked);
    const top = { 'node-name': 'top', driver: 'qcow2', file: file('top.qcow2') } as const;
    await expect(graph.add({ ...top, backing: 'disk' })).rejects.toMatchObject(locked);
    const add = { type: 'add', name: 'b' } as const;
    await expect(graph.changeBitmaps({ disk: [add] })).rejects.toMatchObject(locked);
    expect(JSON.stringify(graph)).toBe(before);
    await other.close();
    await (await guest(true)).close();
    await graph.close();
  });

  test('no user is led to it', async () => {
    await createRawFile('other.raw', SIZE);
    await graph.add({ 'node-name': 'other', ...file('other.raw') }, { writable: true });
    const user = await graph.addExport({ name: 'user', node: 'other', writable: true });
    const other = await writer();
    const child = { parent: 'user', child: 'root', expected: 'other', replacement: 'disk' };
    const replaced = graph.replaceChild({ ...child, unsafe: true });
    await expect(replaced).rejects.toMatchObject({ code: 'ERR_DEVICE_LOCKED' });
    expect([user.node.name, others('other.raw')]).toEqual(['other', 'nothing']);
    await other.close();
    await graph.replaceChild({ ...child, unsafe: true });
    expect([others(), others('other.raw')]).toEqual(['nothing', 'write']);
    await graph.close();
  });
});

test.each([
  ['has made it smaller', () => truncateSync('disk.raw', SIZE / 2), 'has 524288 bytes'],
  [
    'has replaced it',
    async () => {
      await createRawFile('new.raw', SIZE);
      renameSync('new.raw', 'disk.raw');
    },
    'is another file by now',
  ],
] as const)('a file is not used where another program %s meanwhile', async (_, change, message) => {
  await change();
  const used = guest(true);
  await expect(used).rejects.toMatchObject({ code: 'ERR_DEVICE_OPEN' });
  await expect(used).rejects.toThrow(message);
  await graph.remove('disk');
  await graph.add({ 'node-name': 'disk', ...file('disk.raw') }, { writable: true });
  await (await guest(true)).close();
  await graph.close();
});

describe('a lock that cannot be given up', () => {
  test('hides neither what a change has made nor why it failed, and is given up by the next one', async () => {
    const written = await guest(true);
    const failing = vi.spyOn(fs, 'fstatSync').mockImplementation(() => {
      throw new Error('no status');
    });
    try {
      await written.close();
      const unknown = graph.addExport({ name: 'other', node: 'none', writable: false });
      await expect(unknown).rejects.toMatchObject({ message: expect.stringContaining('none') });
    } finally {
      failing.mockRestore();
    }
    expect(others()).toBe('nothing');
    await (await guest(false)).close();
    expect(others()).toBe('write');
    await graph.close();
  });
});
