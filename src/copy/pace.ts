/** Before this much time has passed, rates tell of warming up. */
const WARM_UP_MS = 60;

/** A rate is taken over at least so much time, and so many requests of each lane. */
const PERIOD_MS = 40;
const REQUESTS_PER_LANE = 2;

/** More requests in flight stay only if they make the copy faster by this factor. */
const WORTH_IT = 1.15;

/**
 * How many requests a thread keeps in flight. Few are best where answers come at once, because the bytes stay in
 * the processor's caches; many hide the time that a far or slow device takes to answer. So the number is doubled
 * as long as that makes the copy faster.
 */
export class Pace {
  readonly #most: number;
  #lanes: number;
  /** As many as there were before the number was doubled, and how fast it went. */
  #before: number;
  #rate = 0;
  #bytes = 0;
  #requests = 0;
  /** When the period began; undefined until the first request is done. */
  #since: number | undefined;
  #isWarm = false;
  #isFound: boolean;

  /** Begins with `least` requests in flight and never goes beyond `most`. */
  constructor(least: number, most: number) {
    this.#lanes = least;
    this.#before = least;
    this.#most = most;
    this.#isFound = least >= most;
  }

  /** Requests that should be in flight now. */
  get lanes(): number {
    return this.#lanes;
  }

  /** Takes note of a request of `bytes` that is done at `now`, in milliseconds. */
  done(bytes: number, now: number): void {
    if (this.#isFound) return;
    this.#since ??= now;
    this.#bytes += bytes;
    this.#requests++;
    const ms = now - this.#since;
    if (!this.#isWarm) {
      if (ms >= WARM_UP_MS) this.#begin(now);
      return;
    }
    if (ms < PERIOD_MS || this.#requests < REQUESTS_PER_LANE * this.#lanes) return;
    this.#judge(this.#bytes / ms);
    this.#begin(now);
  }

  /** Says that no more than `lanes` are possible. */
  stay(lanes: number): void {
    this.#lanes = lanes;
    this.#isFound = true;
  }

  #judge(rate: number): void {
    if (rate < this.#rate * WORTH_IT) {
      this.stay(this.#before);
      return;
    }
    this.#rate = rate;
    this.#before = this.#lanes;
    const doubled = Math.min(this.#most, 2 * this.#lanes);
    this.#isFound = doubled === this.#lanes;
    this.#lanes = doubled;
  }

  #begin(now: number): void {
    this.#isWarm = true;
    this.#since = now;
    this.#bytes = 0;
    this.#requests = 0;
  }
}
