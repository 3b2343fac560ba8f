import type { Graph } from '../../../graph/index.js';
import { Serial } from '../../../util/index.js';
import { type DiskMap, diskMap, type MapWish } from './disk-map.js';

/** A map is shown again for so long: many pages cost as much as one. */
const FRESH_MS = 1000;
/** Maps that are kept, and asked for at a time. */
const MOST = 64;

interface Kept {
  readonly map: Promise<DiskMap>;
  readonly at: number;
}

/** Makes maps one after the other. */
export class Maps {
  readonly #graph: Graph;
  readonly #turns = new Serial();
  readonly #kept = new Map<string, Kept>();

  constructor(graph: Graph) {
    this.#graph = graph;
  }

  get(wish: MapWish): Promise<DiskMap> {
    const key = JSON.stringify([wish.node, wish.bitmap, wish.cells]);
    const now = performance.now();
    const kept = this.#kept.get(key);
    if (kept !== undefined && now - kept.at < FRESH_MS) return kept.map;
    const map = this.#turns.run(() => diskMap(this.#graph, wish));
    this.#kept.delete(key);
    this.#kept.set(key, { map, at: now });
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > MOST) this.#kept.delete(oldest);
    return map;
  }
}
