/** What a populate job makes dirty, beside the map that qemu-img draws and the writes that a guest makes meanwhile. */
import { Graph, type LiveJob } from 'lacuna/graph';
import { Random } from 'lacuna/testing';
import { expect, test } from 'vitest';
import { firstSeed } from '../../support/long-run.js';
import { settled } from '../../support/manual-disk.js';
import { run } from '../../support/peers.js';
import { qemuIo } from '../../support/qemu-images.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const CLUSTER = 65_536;
const SIZE = 64 * 1024 * 1024;
const GRANULARITIES = [4096, CLUSTER, 1024 * 1024];

/** An extent as `qemu-img map` tells it. */
interface MapEntry {
  readonly start: number;
  readonly length: number;
  readonly depth: number;
  readonly present: boolean;
  readonly data: boolean;
}

/** Two layers: the base has every sixth cluster, the top some of its own, one of them of zeroes. */
async function makeChain(): Promise<void> {
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', 'base.qcow2', String(SIZE)]);
  const base = Array.from({ length: SIZE / CLUSTER / 6 }, (_, i) => `write ${i * 384}k 64k`);
  await qemuIo('base.qcow2', base);
  const backing = ['-b', 'base.qcow2', '-F', 'qcow2'];
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing, 'top.qcow2', String(SIZE)]);
  await qemuIo('top.qcow2', ['write 1M 192k', 'write -z 5M 64k', 'write 40M 3M']);
}

/** Granules that any of the ranges touches. */
function granulesOf(ranges: readonly (readonly [number, number])[], granularity: number): number[] {
  const found = new Set<number>();
  for (const [offset, length] of ranges) {
    const first = Math.floor(offset / granularity);
    for (let at = first; at * granularity < offset + length; at++) found.add(at);
  }
  return [...found].sort((a, b) => a - b);
}

/** Begins a job that keeps a copy of the disk up to date, and waits until it has caught up. Returns what completes it. */
async function readyJob(graph: Graph, beside: string): Promise<() => Promise<unknown>> {
  if (beside === '') return async () => {};
  const job: LiveJob<unknown> = beside.includes('mirror')
    ? graph.mirror({ node: 'disk', target: { driver: 'memory', size: SIZE }, bitmaps: 'none' })
    : graph.commit({ node: 'disk', base: 'disk.backing' });
  await Promise.race([new Promise<void>((resolve) => job.on('ready', resolve)), job]);
  return () => job.complete();
}

type Counts = (entry: MapEntry) => boolean;
const inTop: Counts = ({ depth, present }) => present && depth === 0;
const isData: Counts = ({ data }) => data;

test.each<[string, 'allocation' | 'data', string, Counts]>([
  ['', 'allocation', 'what the top layer holds', inTop],
  ['', 'data', 'what does not read as zero', isData],
  ['beside a mirror that is ready, ', 'allocation', 'what the top layer holds', inTop],
  ['beside a commit that is ready, ', 'data', 'what does not read as zero', isData],
])(
  '%sfrom %s it has %s by the map of qemu-img and what a guest has written since, in granules of 4 KiB, 64 KiB and 1 MiB',
  async (beside, from, _what, counts) => {
    const random = new Random(firstSeed());
    await makeChain();
    const map = JSON.parse(
      await run('qemu-img', ['map', '--output=json', 'top.qcow2']),
    ) as MapEntry[];
    const ranges = map.filter(counts).map(({ start, length }) => [start, length] as const);
    await using graph = new Graph();
    const file = { driver: 'file', filename: 'top.qcow2' } as const;
    await graph.add({ 'node-name': 'disk', driver: 'qcow2', file }, { writable: true });
    const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
    const names = GRANULARITIES.map((granularity) => `g${granularity}`);
    await graph.changeBitmaps({
      disk: GRANULARITIES.map((granularity, i) => ({
        ...({ type: 'add', name: names[i] } as const),
        granularity,
        persistent: i === 1,
      })),
    });
    const complete = await readyJob(graph, beside);
    const written: (readonly [number, number])[] = [];
    const job = graph.populate({
      from,
      sources: [{ node: 'disk' }],
      targets: names.map((bitmap) => ({ node: 'disk', bitmap })),
    });
    do {
      // Whole clusters, as an image allocates them.
      const offset = random.below(SIZE / CLUSTER) * CLUSTER;
      await guest.write(offset, new Uint8Array(CLUSTER).fill(1));
      written.push([offset, CLUSTER]);
      await settled();
    } while (job.state === 'running' || written.length < 20);
    await job;
    for (const [i, granularity] of GRANULARITIES.entries()) {
      const bitmap = await graph.node('disk').bitmap(names[i]);
      const dirty = [...bitmap.ranges()].map(({ offset, length }) => [offset, length] as const);
      expect(granulesOf(dirty, granularity)).toEqual(
        granulesOf([...ranges, ...written], granularity),
      );
    }
    await complete();
  },
);
