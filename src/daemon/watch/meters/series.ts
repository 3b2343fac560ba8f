/** Upper bounds of the buckets of a duration, in seconds: from what a cache answers to what a disk in trouble takes. */
export const BUCKETS: readonly number[] = [
  0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10,
];

/** Requests of one kind at one place, counted since the first. */
class Series {
  /** All of them, those that have failed too. */
  requests = 0;
  errors = 0;
  /** Bytes of those that have not failed. */
  bytes = 0;
  seconds = 0;
  /** How many took at most as long as the bound of the same index, and longer than the one before; the last took longer than all. */
  readonly buckets = new Float64Array(BUCKETS.length + 1);

  add(bytes: number, seconds: number, hasFailed: boolean): void {
    this.requests++;
    this.seconds += seconds;
    if (hasFailed) this.errors++;
    else this.bytes += bytes;
    let bucket = 0;
    while (bucket < BUCKETS.length && seconds > BUCKETS[bucket]) bucket++;
    this.buckets[bucket]++;
  }
}

/** Series by the place where requests are counted, and by what is asked there. */
export class SeriesTable {
  readonly #places = new Map<string, Map<string, Series>>();

  at(place: string, operation: string): Series {
    let operations = this.#places.get(place);
    if (operations === undefined) {
      operations = new Map();
      this.#places.set(place, operations);
    }
    let series = operations.get(operation);
    if (series === undefined) {
      series = new Series();
      operations.set(operation, series);
    }
    return series;
  }

  /** Forgets the places that are not there any more: names that nobody uses again must not pile up. */
  keep(isThere: (place: string) => boolean): void {
    for (const place of this.#places.keys()) if (!isThere(place)) this.#places.delete(place);
  }

  /** The series of each place, by operation. */
  get places(): ReadonlyMap<string, ReadonlyMap<string, Series>> {
    return this.#places;
  }
}
