/** What an L2 table says of the disk, as runs ("Cluster mapping", "Extended L2 Entries"). */
import { TWO_32 } from '../util/index.js';
import { compressedEntry, entryOffset, isCompressed, isCopied, isZeroFlagged } from './entries.js';
import { corrupt } from './failures.js';
import type { Geometry } from './geometry.js';
import { SUBCLUSTERS } from './limits.js';

/** What a run of clusters or subclusters is. */
export const RunKind = {
  /** Nothing here: what the backing file holds, or zero. */
  unallocated: 0,
  /** Reads as zero, whatever the backing file holds. */
  zero: 1,
  /** Bytes as they are, one behind the other in the file. */
  data: 2,
  /** One compressed cluster, or a part of it. */
  compressed: 3,
} as const;

/** One run; the same object is filled again and again. */
export interface Run {
  kind: number;
  /** Bytes of the disk. */
  length: number;
  /** Where in the file its first byte is (data), or where the compressed bytes of its cluster start. */
  host: number;
  /** The most bytes that the compressed cluster takes in the file. */
  hostLength: number;
}

/** A table, and what is needed to understand it. */
export interface L2Table {
  readonly view: DataView;
  /** Where it lies in the file, for messages. */
  readonly offset: number;
  /** First byte of the disk that it describes. */
  readonly start: number;
}

export interface MappingRules {
  readonly geometry: Geometry;
  readonly version: number;
  /** Clusters lie in an external data file, each at its own place. */
  readonly dataFile: boolean;
  readonly image: string;
}

const ALL = 0xffff_ffff;

/**
 * Finds the run at a byte of the disk: as long as its clusters are of one kind, and its data without a gap.
 *
 * @param from a byte that the table describes; `end` is where the caller's interest ends.
 * @throws LacunaError ERR_QCOW2_CORRUPT where an entry cannot be.
 */
export function findRun(
  table: L2Table,
  rules: MappingRules,
  { from, end, run }: { from: number; end: number; run: Run },
): void {
  const { clusterSize, extended } = rules.geometry;
  const first = Math.floor((from - table.start) / clusterSize);
  const stop = Math.ceil(
    (Math.min(end, table.start + rules.geometry.l2Span) - table.start) / clusterSize,
  );
  const inside = from - table.start - first * clusterSize;
  if (extended) readSubclusterRun(table, rules, { first, stop, inside, run });
  else readRun(table, rules, { first, stop, inside, run });
  run.length = Math.min(run.length, end - from);
}

/** From which byte of which cluster to which cluster a run is looked for. */
interface Search {
  readonly first: number;
  readonly stop: number;
  readonly inside: number;
  readonly run: Run;
}

function readRun(table: L2Table, rules: MappingRules, search: Search): void {
  const { first, stop, inside, run } = search;
  const { view } = table;
  const { clusterSize } = rules.geometry;
  const kind = readCluster(table, rules, first, run);
  run.kind = kind;
  run.length = clusterSize - inside;
  if (kind === RunKind.compressed) return;
  run.host += inside;
  // The entry that goes on with the run has these words: data lies one cluster further, all else is the same again.
  // So a long run is passed without looking at what its entries mean.
  const step = kind === RunKind.data ? clusterSize : 0;
  let high = view.getUint32(first * 8);
  let low = view.getUint32(first * 8 + 4);
  for (let index = first + 1; index < stop; index++) {
    low += step;
    if (low >= TWO_32) {
      low -= TWO_32;
      high += 1;
    }
    const at = index * 8;
    if (view.getUint32(at + 4) !== low || view.getUint32(at) !== high) {
      if (!goesOn(table, rules, search, index)) return;
      high = view.getUint32(at);
      low = view.getUint32(at + 4);
    }
    run.length += clusterSize;
  }
}

/** Whether a cluster with other flags than the one before it goes on with the run all the same. */
function goesOn(
  table: L2Table,
  rules: MappingRules,
  { first, inside, run }: Search,
  index: number,
): boolean {
  if (readCluster(table, rules, index, NEXT) !== run.kind) return false;
  const expected = run.host - inside + (index - first) * rules.geometry.clusterSize;
  return run.kind !== RunKind.data || NEXT.host === expected;
}

const NEXT: Run = { kind: 0, length: 0, host: 0, hostLength: 0 };

/** The kind of a cluster by its standard or extended entry; its place goes into `run`. */
function readCluster(table: L2Table, rules: MappingRules, index: number, run: Run): number {
  const { geometry, dataFile, version } = rules;
  const at = index * geometry.l2EntryBytes;
  const high = table.view.getUint32(at);
  const low = table.view.getUint32(at + 4);
  if (isCompressed(high)) {
    if (dataFile) throw wrong(table, rules, index, 'compressed, in an image with a data file');
    const { offset, length } = compressedEntry(high, low, geometry);
    if (!Number.isSafeInteger(offset)) throw wrong(table, rules, index, 'beyond 2^53 - 1 bytes');
    run.host = offset;
    run.hostLength = length;
    return RunKind.compressed;
  }
  const offset = entryOffset(high, low);
  const isZero = isZeroFlagged(low) && !geometry.extended;
  if (isZero && version === 2) {
    throw wrong(table, rules, index, 'zero, which version 2 does not know');
  }
  if (offset === 0 && !(dataFile && isCopied(high))) {
    return isZero ? RunKind.zero : RunKind.unallocated;
  }
  // A cluster of zeroes may have a place, which nobody reads. It must be one all the same, or the entry is damaged.
  const isPlace = isZero || Number.isSafeInteger(offset);
  if ((low & (geometry.clusterSize - 1) & ~0x1ff) !== 0 || !isPlace) {
    throw wrong(table, rules, index, `at ${offset}, which is no start of a cluster`);
  }
  if (dataFile && offset !== table.start + index * geometry.clusterSize) {
    throw wrong(table, rules, index, `at ${offset} of the data file, which is another's place`);
  }
  if (isZero) return RunKind.zero;
  run.host = offset;
  return RunKind.data;
}

function readSubclusterRun(
  table: L2Table,
  rules: MappingRules,
  { first, stop, inside, run }: Search,
): void {
  const { clusterSize, subclusterSize } = rules.geometry;
  let sub = Math.floor(inside / subclusterSize);
  for (let index = first; index < stop; index++) {
    const place = index === first ? run : NEXT;
    const cluster = readCluster(table, rules, index, place);
    if (cluster === RunKind.compressed) {
      if (index > first) return;
      run.kind = cluster;
      run.length = clusterSize - inside;
      return;
    }
    const at = index * 16;
    const zero = table.view.getUint32(at + 8);
    const allocated = table.view.getUint32(at + 12);
    const impossible = cluster === RunKind.unallocated ? allocated : zero & allocated;
    if (impossible !== 0) {
      throw wrong(
        table,
        rules,
        index,
        'in subclusters that are allocated nowhere, or zero as well',
      );
    }
    if (index === first) {
      run.kind = subclusterKind(zero, allocated, sub);
      run.host += inside;
      run.length = -(inside % subclusterSize);
    } else if (run.kind === RunKind.data && place.host !== run.host + run.length) return;
    const count = sameSubclusters(zero, allocated, sub, run.kind);
    run.length += count * subclusterSize;
    if (sub + count < SUBCLUSTERS) return;
    sub = 0;
  }
}

function subclusterKind(zero: number, allocated: number, sub: number): number {
  if ((zero >>> sub) & 1) return RunKind.zero;
  return (allocated >>> sub) & 1 ? RunKind.data : RunKind.unallocated;
}

/** How many subclusters from `sub` on are of a kind. */
function sameSubclusters(zero: number, allocated: number, sub: number, kind: number): number {
  const ofKind =
    kind === RunKind.zero ? zero : kind === RunKind.data ? allocated : ~(zero | allocated);
  // The first bit that is not set ends the run.
  const others = (~ofKind & ALL) >>> sub;
  if (others === 0) return SUBCLUSTERS - sub;
  return 31 - Math.clz32(others & -others);
}

function wrong(table: L2Table, { geometry, image }: MappingRules, index: number, what: string) {
  const guest = table.start + index * geometry.clusterSize;
  const place = table.offset + index * geometry.l2EntryBytes;
  return corrupt(image, `the cluster for byte ${guest} of the disk is ${what}`, place);
}
