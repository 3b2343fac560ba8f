/** Exports that come and go while the server runs. */
import { createServer, openDevice } from 'lacuna';
import { Graph } from 'lacuna/graph';
import { NbdClient, type NbdServer } from 'lacuna/nbd';
import { beforeEach, expect, onTestFinished, test } from 'vitest';
import { fakeDevice, pattern } from '../../support/fake-device.js';
import { ManualDisk } from '../../support/manual-disk.js';
import { serveDevice } from '../../support/nbd-server.js';
import { run } from '../../support/peers.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const SIZE = 65_536;
let server: NbdServer;
let path: string;

beforeEach(async () => {
  ({ server, path } = await serveDevice(fakeDevice(SIZE), { name: 'first' }));
});

async function enter(exportName: string): Promise<NbdClient> {
  const client = await NbdClient.connect({ server: { type: 'unix', path }, export: exportName });
  onTestFinished(() => client.close());
  return client;
}

test('a client finds an export that was added, and none that was removed', async () => {
  const names = async () => {
    const told = JSON.parse(
      await run('nbdinfo', ['--json', '--list', `nbd+unix:///?socket=${path}`]),
    );
    return told.exports.map((each: Record<string, string>) => each['export-name']);
  };
  expect(await names()).toEqual(['first']);
  server.addExport({ name: 'second', device: fakeDevice(2 * SIZE) });
  expect(await names()).toEqual(['first', 'second']);
  expect((await enter('second')).size).toBe(2 * SIZE);
  await server.removeExport('first');
  expect(await names()).toEqual(['second']);
  await expect(enter('first')).rejects.toMatchObject({ code: 'ERR_DEVICE_OPEN' });
  expect(server.exportNames).toEqual(['second']);
});

test('clients of an export that goes get their answers first, and others go on', async () => {
  const disk = new ManualDisk(SIZE);
  disk.bytes.set(pattern(SIZE));
  server.addExport({ name: 'second', device: disk.device });
  const [first, second] = [await enter('first'), await enter('second')];
  const bytes = new Uint8Array(SIZE);
  const read = second.read(0, bytes);
  await expect.poll(() => disk.held.length).toBe(1);
  let isGone = false;
  const removed = server.removeExport('second').then(() => {
    isGone = true;
  });
  await expect(enter('second')).rejects.toMatchObject({ code: 'ERR_DEVICE_OPEN' });
  expect(isGone).toBe(false);
  disk.held[0].release();
  await read;
  expect(bytes).toEqual(pattern(SIZE));
  await removed;
  await expect(second.read(0, bytes)).rejects.toMatchObject({ code: 'ERR_NBD_DISCONNECTED' });
  await first.read(0, bytes);
  expect(bytes).toEqual(new Uint8Array(SIZE));
});

test('clients of an export that goes are cut off where their answers take too long', async () => {
  const disk = new ManualDisk(SIZE);
  server.addExport({ name: 'second', device: disk.device });
  const second = await enter('second');
  const read = second.read(0, new Uint8Array(1));
  read.catch(() => {});
  await expect.poll(() => disk.held.length).toBe(1);
  await server.removeExport('second', { timeoutMs: 0 });
  await expect(read).rejects.toMatchObject({ code: 'ERR_NBD_DISCONNECTED' });
  disk.held[0].release();
});

test('exports are added once, and removed where they are', async () => {
  const device = fakeDevice(SIZE);
  expect(() => server.addExport({ name: 'first', device })).toThrow('two exports have the name');
  expect(() => server.addExport({ name: 'x' } as never)).toThrow('needs a device');
  await expect(server.removeExport('x')).rejects.toThrow('there is no export "x"');
});

test('a server with threads keeps the exports that it began with', async () => {
  await run('truncate', ['-s', '64K', 'disk.raw']);
  await using device = await openDevice('disk.raw');
  await using threaded = await createServer({ exports: [{ name: 'a', device }], threads: 2 });
  const added = { name: 'b', device: fakeDevice(SIZE) };
  expect(() => threaded.addExport(added)).toThrow('threads');
  await expect(threaded.removeExport('a')).rejects.toThrow('threads');
});

test('a node is exported and another one comes in its place while a client is connected', async () => {
  const graph = new Graph();
  const [old, fresh] = [fakeDevice(SIZE), fakeDevice(SIZE)];
  await fresh.write(0, pattern(SIZE));
  await graph.addDevice('old', old);
  await graph.addDevice('fresh', fresh);
  const device = await graph.addExport({ name: 'guest', node: 'old', writable: true });
  server.addExport({ name: 'guest', device });
  const client = await enter('guest');
  const bytes = new Uint8Array(SIZE);
  const reads = Array.from({ length: 20 }, () => client.read(0, new Uint8Array(SIZE)));
  await graph.replaceChild({
    ...{ parent: 'guest', child: 'root', expected: 'old', replacement: 'fresh' },
    unsafe: true,
  });
  await Promise.all(reads);
  await client.read(0, bytes);
  expect(bytes).toEqual(pattern(SIZE));
  await server.removeExport('guest');
  await graph.close();
});
