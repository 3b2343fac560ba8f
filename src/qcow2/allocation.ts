/**
 * Where new metadata goes ("Host cluster management"). A refcount block is itself a cluster with a refcount, so
 * whatever adds blocks must say where the refcounts of the blocks themselves are kept.
 */

/** A range of clusters that nothing has used before, with the refcount blocks that describe it. */
export interface Area {
  /** Number of the first cluster; the clusters that were asked for begin here. */
  readonly start: number;
  /** Clusters asked for. */
  readonly count: number;
  /** Index in the refcount table of the first of the new blocks. */
  readonly firstBlock: number;
  /** New blocks. They follow the clusters that were asked for, in their order. */
  readonly blocks: number;
}

/**
 * Plans `count` clusters in a row, and the new refcount blocks for them, in the range of blocks that do not exist yet:
 *
 *     | asked for ... | block | block |
 *     ^ first cluster of block `firstBlock`, which describes all of this, itself included
 *
 * @param firstBlock index of the first block behind which, itself included, no block exists.
 * @param blockEntries refcounts in one block.
 */
export function planArea(firstBlock: number, count: number, blockEntries: number): Area {
  // A block of one refcount could only ever describe itself.
  if (blockEntries < 2) throw new RangeError(`${blockEntries} refcounts in a block are too few`);
  let blocks = 1;
  while (count + blocks > blocks * blockEntries) {
    blocks = Math.ceil((count + blocks) / blockEntries);
  }
  return { start: firstBlock * blockEntries, count, firstBlock, blocks };
}

/** Number of the cluster where new block `index` of an area is kept. */
export function blockCluster(area: Area, index: number): number {
  return area.start + area.count + (index - area.firstBlock);
}

/** A longer refcount table, in an area of its own. */
export interface TableGrowth {
  readonly area: Area;
  /** Clusters of the new table. */
  readonly clusters: number;
}

/**
 * Plans a refcount table for more than `entries` blocks. It grows by half at least, so that a file which grows steadily
 * moves its table seldom.
 */
export function planTableGrowth(
  entries: number,
  clusterSize: number,
  blockEntries: number,
): TableGrowth {
  const entriesPerCluster = clusterSize / 8;
  let clusters = Math.ceil((entries + Math.ceil(entries / 2) + 1) / entriesPerCluster);
  for (;;) {
    const area = planArea(entries, clusters, blockEntries);
    const needed = Math.ceil((entries + area.blocks) / entriesPerCluster);
    if (needed <= clusters) return { area, clusters };
    clusters = needed;
  }
}

/** Where the metadata of a new image lies: header, refcount table, refcount blocks, and what follows, in a row. */
export interface NewLayout {
  readonly tableClusters: number;
  readonly blocks: number;
  /** Number of the first cluster behind the blocks. */
  readonly rest: number;
  /** Clusters in all, those of the rest included. */
  readonly total: number;
}

/**
 * Lays out a new image.
 *
 * @param rest clusters that follow header, refcount table and refcount blocks.
 */
export function newLayout(rest: number, clusterSize: number, blockEntries: number): NewLayout {
  let tableClusters = 1;
  let blocks = 1;
  for (;;) {
    const total = 1 + tableClusters + blocks + rest;
    const neededBlocks = Math.ceil(total / blockEntries);
    const neededTable = Math.ceil((neededBlocks * 8) / clusterSize);
    if (neededBlocks <= blocks && neededTable <= tableClusters) {
      return { tableClusters, blocks, rest: 1 + tableClusters + blocks, total };
    }
    blocks = Math.max(blocks, neededBlocks);
    tableClusters = Math.max(tableClusters, neededTable);
  }
}
