/** Before this much time has passed, rates tell of warming up. */
const WARM_UP_MS = 50;

/** A rate is taken over at least so much time, and so many requests of each lane. */
const PERIOD_MS = 30;
const REQUESTS_PER_LANE = 2;

/** Larger requests, or more of them, stay only if they make the copy faster by this factor. */
const WORTH_IT = 1.15;

/** What the requests of one thread are at first, and what they may become; plain data, to be posted to a worker. */
export interface PaceRange {
  /** Requests in flight at first. */
  requests: number;
  /** Requests in flight where more of them make the copy faster. */
  mostRequests: number;
  /** Bytes of one request at first; a power of two, as is the largest. */
  requestSize: number;
  /** Bytes of one request where larger ones make the copy faster. */
  largestRequest: number;
  /** Bytes of all requests in flight that neither may grow beyond. */
  mostBytes: number;
}

/** How many requests are in flight, and how large they are. */
type Load = Pick<PaceRange, 'requests' | 'requestSize'>;

/** The next load to try; undefined where there is none. */
type Step = (load: Load) => Load | undefined;

/**
 * How many requests a thread keeps in flight, and how large they are. Few and short ones are best where answers come
 * at once, because the bytes stay in the processor's caches; large and many hide the time that a far or slow device
 * takes to answer. So their size is doubled as long as that makes the copy faster, and then their number. Size comes
 * first, since some servers work on no more than so many requests of a connection at once, and since fewer requests
 * cost less.
 */
export class Pace {
  readonly #range: PaceRange;
  #load: Load;
  /** What it was before it was changed, and how fast that went. */
  #before: Load;
  #rate = 0;
  /** What is left to be tried, in order. */
  readonly #steps: Step[];
  /** Requests that were in flight when the load was changed, and tell nothing of the new one. */
  #earlier = 0;
  #bytes = 0;
  #requests = 0;
  /** When the period began; undefined until the first request is done. */
  #since: number | undefined;
  #isWarm = false;
  #isFound = false;

  constructor(range: PaceRange) {
    this.#range = range;
    this.#load = { requests: range.requests, requestSize: range.requestSize };
    this.#before = this.#load;
    this.#steps = [(load) => this.#larger(load), (load) => this.#more(load)];
    this.#isFound = this.#steps.every((step) => step(this.#load) === undefined);
  }

  /** Requests that should be in flight now. */
  get requests(): number {
    return this.#load.requests;
  }

  /** Bytes of a request that begins now. */
  get requestSize(): number {
    return this.#load.requestSize;
  }

  /** Takes note of a request of `bytes` that is done at `now`, in milliseconds. */
  done(bytes: number, now: number): void {
    if (this.#isFound) return;
    this.#since ??= now;
    if (this.#earlier > 0) {
      if (--this.#earlier === 0) this.#begin(now);
      return;
    }
    this.#bytes += bytes;
    this.#requests++;
    const ms = now - this.#since;
    if (!this.#isWarm) {
      this.#isWarm = ms >= WARM_UP_MS;
      if (this.#isWarm) this.#begin(now);
      return;
    }
    if (ms < PERIOD_MS || this.#requests < REQUESTS_PER_LANE * this.requests) return;
    this.#judge(this.#bytes / ms);
  }

  /** Says that the copy was held up, so that what was counted tells nothing of the load. */
  interrupted(): void {
    this.#since = undefined;
    this.#bytes = 0;
    this.#requests = 0;
  }

  /** Says that there is no memory for more than this. */
  stay(requests: number, requestSize: number): void {
    this.#load = { requests, requestSize };
    this.#isFound = true;
  }

  #judge(rate: number): void {
    this.#earlier = this.requests;
    if (rate < this.#rate * WORTH_IT) {
      this.#load = this.#before;
      this.#steps.shift();
    } else {
      this.#rate = rate;
      this.#before = this.#load;
    }
    for (; this.#steps.length > 0; this.#steps.shift()) {
      const next = this.#steps[0](this.#load);
      if (next === undefined) continue;
      this.#load = next;
      return;
    }
    this.#isFound = true;
  }

  #larger({ requests, requestSize }: Load): Load | undefined {
    const { largestRequest, mostBytes } = this.#range;
    const doubled = 2 * requestSize;
    if (doubled > largestRequest || doubled * requests > mostBytes) return undefined;
    return { requests, requestSize: doubled };
  }

  #more({ requests, requestSize }: Load): Load | undefined {
    const { mostRequests, mostBytes } = this.#range;
    const most = Math.min(mostRequests, Math.floor(mostBytes / requestSize), 2 * requests);
    return most > requests ? { requests: most, requestSize } : undefined;
  }

  #begin(now: number): void {
    this.#since = now;
    this.#bytes = 0;
    this.#requests = 0;
  }
}
