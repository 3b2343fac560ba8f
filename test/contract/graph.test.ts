/** Exports of a graph are devices like any other, whatever lies below them. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe } from 'vitest';
import { createQcow2, createRawFile, Device, MemoryDriver } from '#dist/block/index.js';
import { Graph, type NodeDescription } from '#dist/graph/index.js';
import type { DeviceContractOptions } from '#dist/testing/index.js';
import { ODD_SIZE, SIZE, suite } from './suites.js';

type Made = (folder: string) => Promise<NodeDescription>;

const RAW: Made = async (folder) => {
  const filename = join(folder, 'disk.raw');
  await createRawFile(filename, ODD_SIZE);
  return { driver: 'file', filename };
};

const IMAGE: Made = async (folder) => {
  const filename = join(folder, 'disk.qcow2');
  await createQcow2(filename, { size: SIZE });
  return { driver: 'qcow2', file: { driver: 'file', filename } };
};

/** What lies above the disk. */
type Above = (graph: Graph) => Promise<unknown>;

const ABOVE: Record<string, Above> = {
  nothing: async () => {},
  'a throttle that came in later': (graph) =>
    graph.insertFilter({
      filter: { driver: 'throttle', 'requests-per-second': 1e9 },
      above: 'disk',
    }),
  'copy-before-write': async (graph) => {
    const size = graph.node('disk').size;
    await graph.addDevice('target', new Device(new MemoryDriver({ size })));
    const filter = { driver: 'copy-before-write', target: 'target' } as const;
    return graph.insertFilter({ filter, above: 'disk' });
  },
};

function exported(size: number, make: Made, above: Above): DeviceContractOptions {
  const open = async () => {
    const folder = await mkdtemp(join(tmpdir(), 'lacuna-'));
    const graph = new Graph();
    const description = { ...(await make(folder)), 'node-name': 'disk' } as NodeDescription;
    await graph.add(description, { writable: true });
    const device = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
    await above(graph);
    const dispose = async () => {
      await graph.close();
      await rm(folder, { recursive: true });
    };
    return { device, dispose };
  };
  return { size, open };
}

describe('an export of a graph', () => {
  for (const [name, above] of Object.entries(ABOVE)) {
    suite(`of a raw file below ${name}`, exported(ODD_SIZE, RAW, above));
    suite(`of a qcow2 image below ${name}`, exported(SIZE, IMAGE, above));
  }
});
