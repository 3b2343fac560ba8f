const LARGEST_SMALL = 0xffff;

/** How often each cluster of a window is referred to. */
export class ReferenceCounts {
  readonly first: number;
  readonly end: number;
  readonly #counts: Uint16Array;
  /** The few that are larger: clusters that many snapshots share. */
  readonly #large = new Map<number, number>();

  /** Counts the clusters from `first` up to, not including, `end`. */
  constructor(first: number, end: number) {
    this.first = first;
    this.end = end;
    this.#counts = new Uint16Array(end - first);
  }

  get(cluster: number): number {
    const count = this.#counts[cluster - this.first];
    return count < LARGEST_SMALL ? count : this.#large.get(cluster)!;
  }

  /** Counts one more reference to a cluster of this window. */
  add(cluster: number): void {
    const index = cluster - this.first;
    const count = this.#counts[index];
    if (count < LARGEST_SMALL - 1) {
      this.#counts[index] = count + 1;
      return;
    }
    this.#large.set(cluster, (this.#large.get(cluster) ?? count) + 1);
    this.#counts[index] = LARGEST_SMALL;
  }
}
