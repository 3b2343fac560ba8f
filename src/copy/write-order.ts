/** Lets pieces be written in the order in which they were taken, however fast each of them was read. */
export class WriteOrder {
  #last: Promise<void> = Promise.resolve();

  /** Stands in line; to be called when a piece is taken. */
  take(): Turn {
    const come = this.#last;
    let end = () => {};
    this.#last = new Promise((resolve) => {
      end = resolve;
    });
    return { come, end };
  }
}

export interface Turn {
  /** Resolves when all earlier pieces are done with. */
  readonly come: Promise<void>;
  /** Lets the next one go on; to be called in any case. */
  end(): void;
}
