import { setTimeout as sleep } from 'node:timers/promises';

/** How a job that goes on until it is told to end, ends: `complete`, its result comes into use; `cancel`, it stays beside. */
export type Ending = 'complete' | 'cancel';

/** What the users of a job have asked for, and who waits for that. */
export class Wish {
  #ending: Ending | undefined;
  #asked: { resolve(): void; reject(error: unknown): void }[] = [];
  #news: (() => void)[] = [];
  #onAsk = () => {};
  #hasNews = false;
  #isOver = false;

  /** What is asked for now. */
  get ending(): Ending | undefined {
    return this.#ending;
  }

  /** Asks for an end. Resolves when the job has ended, however; rejects where that cannot be, and the job goes on. */
  async ask(ending: Ending): Promise<void> {
    if (this.#isOver) return;
    if (this.#ending !== undefined && this.#ending !== ending) {
      throw new TypeError(`the job is about to ${this.#ending}: wait for that`);
    }
    this.#ending = ending;
    const asked = new Promise<void>((resolve, reject) => this.#asked.push({ resolve, reject }));
    this.#onAsk();
    this.tell();
    return asked;
  }

  /** It cannot be: nothing is asked for any more. */
  refuse(error: unknown): void {
    for (const each of this.#take()) each.reject(error);
  }

  /** It is so, or the job has ended otherwise, of which it tells itself. */
  end(): void {
    this.#isOver = true;
    for (const each of this.#take()) each.resolve();
  }

  /** Wakes the job, also where it only lets some time pass. */
  call(): void {
    this.#onAsk();
    this.tell();
  }

  /** Wakes the job where it waits for news. */
  tell(): void {
    this.#hasNews = true;
    const news = this.#news;
    this.#news = [];
    for (const wake of news) wake();
  }

  /** Resolves when somebody has told something since this resolved the last time, or the signal fires. */
  async news(signal: AbortSignal): Promise<void> {
    if (!this.#hasNews && !signal.aborted) {
      await new Promise<void>((resolve) => {
        const wake = () => {
          signal.removeEventListener('abort', wake);
          resolve();
        };
        signal.addEventListener('abort', wake);
        this.#news.push(wake);
      });
    }
    this.#hasNews = false;
  }

  /** Resolves when somebody asks for an end, or calls, the time is over, or the signal fires. */
  async asked(ms: number, signal: AbortSignal): Promise<void> {
    const early = new AbortController();
    const end = () => early.abort();
    signal.addEventListener('abort', end);
    this.#onAsk = end;
    try {
      if (!signal.aborted) {
        await sleep(ms, undefined, { signal: early.signal }).catch(() => {});
      }
    } finally {
      signal.removeEventListener('abort', end);
      this.#onAsk = () => {};
    }
  }

  #take() {
    const asked = this.#asked;
    this.#asked = [];
    this.#ending = undefined;
    return asked;
  }
}
