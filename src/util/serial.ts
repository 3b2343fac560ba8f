/** Runs tasks one after another, in the order in which they were handed in. */
export class Serial {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs a task when all earlier ones have ended, well or not; answers what it answers. */
  run<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#last.then(task);
    this.#last = result.catch(() => undefined);
    return result;
  }
}
