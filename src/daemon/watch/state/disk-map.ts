import type { DirtyBitmap } from '../../../bitmap/index.js';
import { LacunaError } from '../../../errors/index.js';
import { Context, Status } from '../../../extent/index.js';
import type { Graph, Node } from '../../../graph/index.js';

/** What a disk has where, in equal parts. */
export interface DiskMap {
  readonly node: string;
  /** Bytes of the disk. */
  readonly size: number;
  /** Bytes of each part; the last may have fewer. */
  readonly cellBytes: number;
  /** Bytes of data, of allocated zeroes, and of holes, in each part. */
  readonly data: readonly number[];
  readonly zero: readonly number[];
  readonly hole: readonly number[];
  /** Dirty bytes in each part, of the bitmap that was asked for; absent without one. */
  readonly dirty?: readonly number[];
  readonly bitmap?: string;
  /** Whether all of the disk was asked: parts behind that have no bytes of either kind. */
  readonly isWhole: boolean;
}

/** Which map is wanted. */
export interface MapWish {
  readonly node: string;
  readonly bitmap?: string;
  /** Parts; fewer where the disk has fewer bytes. */
  readonly cells: number;
}

/** Questions for one map, and time for them: a disk in very many pieces is shown in part. */
const MOST_QUESTIONS = 2000;
const MOST_MS = 2000;

/** @throws LacunaError ERR_GRAPH_UNKNOWN, ERR_BITMAP_UNKNOWN; what the node answers. */
export async function diskMap(
  graph: Graph,
  { node: name, bitmap, cells }: MapWish,
): Promise<DiskMap> {
  const node = graph.node(name);
  const { size } = node;
  // Multiples of a sector, so that parts are alike.
  const cellBytes = Math.max(512, Math.ceil(size / cells / 512) * 512);
  const count = Math.ceil(size / cellBytes);
  const empty = () => new Array<number>(count).fill(0);
  const parts = { data: empty(), zero: empty(), hole: empty() };
  const dirty =
    bitmap === undefined ? undefined : dirtyParts(await node.bitmap(bitmap), count, cellBytes);
  const isWhole = await lookAt(graph, node, (offset, length, flags) => {
    const kind = flags & Status.hole ? 'hole' : flags & Status.zero ? 'zero' : 'data';
    spread(parts[kind], cellBytes, offset, length);
  });
  return {
    ...{ node: name, size, cellBytes, isWhole, ...parts },
    ...(dirty !== undefined && { bitmap: bitmap!, dirty }),
  };
}

function dirtyParts(bitmap: DirtyBitmap, count: number, cellBytes: number): number[] {
  return Array.from({ length: count }, (_, cell) => {
    const offset = cell * cellBytes;
    return bitmap.countIn(offset, Math.min(cellBytes, bitmap.size - offset));
  });
}

/** Asks for the status of a node, piece by piece. Whether it has answered for all of it. */
async function lookAt(
  graph: Graph,
  node: Node,
  found: (offset: number, length: number, flags: number) => void,
): Promise<boolean> {
  const { size } = node;
  const options = { contexts: [Context.allocation], signal: AbortSignal.timeout(MOST_MS) };
  let at = 0;
  for (let asked = 0; at < size; asked++) {
    if (asked === MOST_QUESTIONS || options.signal.aborted) return false;
    const [list] = await graph.someExtents(node, at, size - at, options).catch(orNothing);
    if (list === undefined) return false;
    for (let i = 0; i < list.count; i++) {
      const end = Math.min(list.endAt(i), size);
      found(at, end - at, list.flagsAt(i));
      at = end;
    }
  }
  return true;
}

function orNothing(error: unknown): [] {
  if (error instanceof LacunaError && error.code === 'ERR_ABORTED') return [];
  throw error;
}

/** Adds a range to the parts that it lies in. */
function spread(parts: number[], cellBytes: number, offset: number, length: number): void {
  const end = offset + length;
  for (let cell = Math.floor(offset / cellBytes); cell * cellBytes < end; cell++) {
    const start = Math.max(offset, cell * cellBytes);
    parts[cell] += Math.min(end, (cell + 1) * cellBytes) - start;
  }
}
