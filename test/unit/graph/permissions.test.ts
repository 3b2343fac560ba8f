import { createQcow2, createRawFile } from 'lacuna';
import { Graph } from 'lacuna/graph';
import { beforeEach, describe, expect, test } from 'vitest';
import { fakeDevice } from '../../support/fake-device.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const SIZE = 1024 * 1024;
const file = (filename: string) => ({ driver: 'file', filename }) as const;
const top = { 'node-name': 'top', driver: 'qcow2', file: file('top.qcow2') } as const;

let graph: Graph;

beforeEach(async () => {
  await createRawFile('base.raw', SIZE);
  await createQcow2('top.qcow2', { size: SIZE, backing: { filename: 'base.raw', format: 'raw' } });
  graph = new Graph();
});

function refused(work: Promise<unknown>, message: string): Promise<void> {
  return expect(work).rejects.toMatchObject({
    code: 'ERR_GRAPH_CONFLICT',
    message: expect.stringContaining(message),
  });
}

describe('a node that is the backing of another one', () => {
  beforeEach(async () => {
    await graph.add({ 'node-name': 'base', ...file('base.raw') }, { writable: true });
    await graph.add({ ...top, backing: 'base' }, { writable: true });
  });

  test('may be read by others, but not written', async () => {
    await graph.addExport({ name: 'reader', node: 'base' });
    const writer = graph.addExport({ name: 'writer', node: 'base', writable: true });
    await refused(
      writer,
      "export 'writer' needs to write node 'base', and backing of node 'top' does not let others write it",
    );
    expect(graph.users.map(({ name }) => name)).toEqual(['reader']);
    await graph.close();
  });

  test('is not written through filters either', async () => {
    await graph.add({ driver: 'throttle', 'node-name': 'slow', file: 'base' }, { writable: true });
    const writer = graph.addExport({ name: 'writer', node: 'slow', writable: true });
    await refused(
      writer,
      "file of node 'slow' needs to write node 'base', and backing of node 'top'",
    );
    await graph.close();
  });
});

test('a node that is written does not become the backing of another one', async () => {
  await graph.add({ 'node-name': 'base', ...file('base.raw') }, { writable: true });
  await graph.addExport({ name: 'writer', node: 'base', writable: true });
  await refused(
    graph.add({ ...top, backing: 'base' }),
    "export 'writer' needs to write node 'base', and backing of node 'top'",
  );
  expect(graph.nodes.map(({ name }) => name)).toEqual(['base']);
  await graph.close();
});

test('the file of an image that is written is for nobody else to write', async () => {
  await graph.add(top, { writable: true });
  const writer = graph.addExport({ name: 'writer', node: 'top.file', writable: true });
  await refused(writer, "file of node 'top' does not let others write it");
  await graph.close();
});

test('the file of an image that is written must have no other users, as it grows', async () => {
  await graph.add({ 'node-name': 'protocol', ...file('top.qcow2') }, { writable: true });
  await graph.addExport({ name: 'reader', node: 'protocol' });
  await refused(
    graph.add({ ...top, file: 'protocol' }, { writable: true }),
    "node 'top' would make node 'protocol' longer, which others use",
  );
  await graph.close();
});

test('a node that is open for reading only is not written', async () => {
  await graph.add({ 'node-name': 'base', ...file('base.raw') });
  await refused(
    graph.addExport({ name: 'writer', node: 'base', writable: true }),
    "export 'writer' needs to write node 'base', which is open for reading only",
  );
  await graph.add({ driver: 'throttle', 'node-name': 'slow', file: 'base' }, { writable: true });
  await refused(
    graph.addExport({ name: 'writer', node: 'slow', writable: true }),
    "file of node 'slow' needs to write node 'base', which is open for reading only",
  );
  await graph.close();
});

test('two exports go together where each lets the other do what it needs', async () => {
  await graph.addDevice('disk', fakeDevice(SIZE));
  await graph.addExport({ name: 'alone', node: 'disk', writable: true, shares: ['read'] });
  await graph.addExport({ name: 'reader', node: 'disk' });
  await refused(
    graph.addExport({ name: 'second', node: 'disk', writable: true }),
    "export 'second' needs to write node 'disk', and export 'alone' does not let others write it",
  );
  await refused(
    graph.addExport({ name: 'third', node: 'disk', shares: ['read'] }),
    "export 'alone' needs to write node 'disk', and export 'third' does not let others write it",
  );
  const shares = ['write', 'delete'] as never;
  expect(() => graph.addExport({ name: 'x', node: 'disk', shares })).toThrow('not "delete"');
  await graph.close();
});
