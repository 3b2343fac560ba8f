/** What a check has found. */

/** Sentences that are kept; the numbers count all. */
const MOST_TOLD = 100;

/** Numbers as `qemu-img check` has them, and the first of what was found in words. */
export class Findings {
  /** Wrong entries of tables, refcounts that are too low, and marks that are wrong. */
  corruptions = 0;
  /** Those of them that right refcounts and marks do not mend: wrong entries of tables. */
  damaged = 0;
  /** Those of them that are clusters whose refcount is too low. */
  low = 0;
  /** Clusters whose refcount is too high: only space is lost. */
  leaks = 0;
  /** What could not be looked at. */
  checkErrors = 0;
  allocatedClusters = 0;
  compressedClusters = 0;
  fragmentedClusters = 0;
  readonly told: string[] = [];

  damage(sentence: string): void {
    this.damaged++;
    this.corrupt(sentence);
  }

  undercount(sentence: string): void {
    this.low++;
    this.corrupt(sentence);
  }

  corrupt(sentence: string): void {
    this.corruptions++;
    this.#tell(sentence);
  }

  leak(sentence: string): void {
    this.leaks++;
    this.#tell(sentence);
  }

  fail(sentence: string): void {
    this.checkErrors++;
    this.#tell(sentence);
  }

  #tell(sentence: string): void {
    if (this.told.length < MOST_TOLD) this.told.push(sentence);
  }
}
