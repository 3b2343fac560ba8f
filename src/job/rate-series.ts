/** How fast a copy went, second by second, in a bounded number of steps. */
interface Rates {
  stepMs: number;
  bytesPerSecond: number[];
}

/** Samples that are kept; when there are twice as many, every two become one. */
const STEPS = 300;

export const SAMPLE_MS = 1000;

/** The rate that is told while a copy runs is that of the last so many samples. */
const RECENT = 4;

export class RateSeries {
  #stepMs = SAMPLE_MS;
  #steps: number[] = [];
  /** Samples that do not fill a step yet. */
  #sum = 0;
  #count = 0;
  readonly #recent: { doneBytes: number; elapsedMs: number }[] = [{ doneBytes: 0, elapsedMs: 0 }];

  /** Takes what was done by now; to be called about every {@link SAMPLE_MS}. */
  sample(doneBytes: number, elapsedMs: number): void {
    const last = this.#recent.at(-1)!;
    if (elapsedMs <= last.elapsedMs) return;
    // Bytes that a failure made dirty again do not count as a rate below nothing.
    const done = Math.max(0, doneBytes - last.doneBytes);
    // What is counted anew, such as what is read back, has a rate of its own.
    if (doneBytes < last.doneBytes) this.#recent.length = 0;
    this.#recent.push({ doneBytes, elapsedMs });
    if (this.#recent.length > RECENT + 1) this.#recent.shift();
    this.#sum += (done / (elapsedMs - last.elapsedMs)) * 1000;
    this.#count++;
    if (this.#count * SAMPLE_MS >= this.#stepMs) this.#endStep();
  }

  /** Takes what was done in all, when the copy is at its end: the last step may be shorter than the others. */
  finish(doneBytes: number, elapsedMs: number): void {
    const isNews = doneBytes > this.#recent.at(-1)!.doneBytes || this.#steps.length === 0;
    if (isNews) this.sample(doneBytes, elapsedMs);
    if (this.#count > 0) this.#endStep();
  }

  #endStep(): void {
    this.#steps.push(Math.round(this.#sum / this.#count));
    this.#sum = 0;
    this.#count = 0;
    if (this.#steps.length === 2 * STEPS) this.#halve();
  }

  /** Bytes per second of late, up to this moment. */
  now(doneBytes: number, elapsedMs: number): number {
    const [first] = this.#recent;
    const ms = elapsedMs - first.elapsedMs;
    return ms > 0 ? Math.max(0, ((doneBytes - first.doneBytes) / ms) * 1000) : 0;
  }

  rates(): Rates {
    return { stepMs: this.#stepMs, bytesPerSecond: [...this.#steps] };
  }

  #halve(): void {
    const halved: number[] = [];
    for (let i = 0; i < this.#steps.length; i += 2) {
      halved.push(Math.round((this.#steps[i] + this.#steps[i + 1]) / 2));
    }
    this.#steps = halved;
    this.#stepMs *= 2;
  }
}
