import { renameSync, truncateSync } from 'node:fs';
import { createQcow2, createRawFile, type Device, openDevice } from 'lacuna';
import { Graph } from 'lacuna/graph';
import { beforeEach, describe, expect, test } from 'vitest';
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

/** What another program can do with a file: each opening has locks of its own, as in another process. */
async function others(path = 'disk.raw'): Promise<string> {
  const may = async (writable: boolean) => {
    try {
      await (await openDevice(path, { writable })).close();
      return true;
    } catch (error) {
      expect(error).toMatchObject({ code: 'ERR_DEVICE_LOCKED' });
      return false;
    }
  };
  if (await may(true)) return 'write';
  return (await may(false)) ? 'read' : 'nothing';
}

const guest = (writable: boolean, more: object = {}) =>
  graph.addExport({ name: 'guest', node: 'disk', writable, ...more });

/** Another program that writes the disk. */
const writer = (): Promise<Device> => openDevice('disk.raw', { writable: true });

describe('the lock of a file', () => {
  test('follows what its node is used for', async () => {
    expect(await others()).toBe('write');
    const written = await guest(true);
    expect(await others()).toBe('nothing');
    await written.close();
    expect(await others()).toBe('write');
    const read = await guest(false);
    expect(await others()).toBe('read');
    await graph.insertFilter({
      filter: { driver: 'delay', 'node-name': 'slow', milliseconds: 0 },
      above: 'disk',
    });
    const second = await graph.addExport({ name: 'second', node: 'slow', writable: true });
    expect(await others()).toBe('nothing');
    await second.close();
    expect(await others()).toBe('read');
    await read.close();
    expect(await others()).toBe('write');
    await graph.close();
  });

  test('keeps others from writing while its node has bitmaps, which would lack that', async () => {
    await graph.changeBitmaps({ disk: [{ type: 'add', name: 'b' }] });
    expect(await others()).toBe('read');
    await graph.changeBitmaps({ disk: [{ type: 'remove', name: 'b' }] });
    expect(await others()).toBe('write');
    await graph.close();
  });

  test('lets others read what has become a lower layer', async () => {
    const written = await guest(true);
    const overlay = { 'node-name': 'top', driver: 'qcow2', file: file('top.qcow2') } as const;
    await graph.create({ image: overlay, over: 'disk' });
    await graph.snapshot({ disks: [{ node: 'disk', overlay }] });
    await written.write(0, new Uint8Array(512).fill(1));
    expect(await others()).toBe('read');
    expect(await others('top.qcow2')).toBe('nothing');
    await graph.close();
  });

  test('is for as long as a job writes its node', async () => {
    await createRawFile('target.raw', SIZE);
    await graph.add({ 'node-name': 'target', ...file('target.raw') }, { writable: true });
    const job = graph.mirror({ node: 'disk', target: 'target' });
    await expect.poll(() => job.isReady).toBe(true);
    expect(await others('target.raw')).toBe('nothing');
    await job.cancel();
    expect(await others('target.raw')).toBe('write');
    await graph.close();
  });

  test('is that of an image as long as this has the node as its file', async () => {
    await createQcow2('image.qcow2', { size: SIZE });
    await graph.add({ 'node-name': 'raw', ...file('image.qcow2') }, { writable: true });
    expect(await others('image.qcow2')).toBe('write');
    await graph.add({ 'node-name': 'image', driver: 'qcow2', file: 'raw' }, { writable: true });
    expect(await others('image.qcow2')).toBe('nothing');
    await graph.remove('image');
    expect(await others('image.qcow2')).toBe('write');
    await graph.close();
  });

  test('is that of the writer when an image that was only read is written', async () => {
    await createQcow2('image.qcow2', {
      size: SIZE,
      backing: { filename: 'disk.raw', format: 'raw' },
    });
    await graph.add({ 'node-name': 'raw', ...file('image.qcow2') }, { writable: true });
    await graph.add({ 'node-name': 'image', driver: 'qcow2', file: 'raw', backing: 'disk' });
    expect([await others('image.qcow2'), await others()]).toEqual(['read', 'read']);
    const job = graph.stream({ node: 'image' });
    job.pause();
    await expect.poll(() => graph.users.length).toBe(1);
    expect(await others('image.qcow2')).toBe('nothing');
    job.resume();
    await job;
    expect(await others('image.qcow2')).toBe('read');
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
    await expect(guest(false)).rejects.toMatchObject(locked);
    const target = { driver: 'memory', size: SIZE } as const;
    await expect(graph.mirror({ node: 'disk', target })).rejects.toMatchObject(locked);
    await expect(graph.openBackup({ nodes: ['disk'] })).rejects.toMatchObject(locked);
    const top = { 'node-name': 'top', driver: 'qcow2', file: file('top.qcow2') } as const;
    await expect(graph.add({ ...top, backing: 'disk' })).rejects.toMatchObject(locked);
    const add = { type: 'add', name: 'b' } as const;
    await expect(graph.changeBitmaps({ disk: [add] })).rejects.toMatchObject(locked);
    await expect(graph.resize('disk', 2 * SIZE)).rejects.toMatchObject(locked);
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
    expect([user.node.name, await others('other.raw')]).toEqual(['other', 'nothing']);
    await other.close();
    await graph.replaceChild({ ...child, unsafe: true });
    expect([await others(), await others('other.raw')]).toEqual(['nothing', 'write']);
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
