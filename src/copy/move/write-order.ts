/** Lets pieces be written in the order in which they were taken, however fast each of them was read. */
export class WriteOrder {
  #last: Promise<boolean> = Promise.resolve(true);

  /** Stands in line; to be called when a piece is taken. */
  take(): Turn {
    const come = this.#last;
    let end = (_isWritten: boolean) => {};
    this.#last = new Promise((resolve) => {
      end = (isWritten) => resolve(come.then((areWritten) => areWritten && isWritten));
    });
    return { come, end };
  }
}

export interface Turn {
  /** Resolves when all earlier pieces are done with: whether they were written, so that this one may be. */
  readonly come: Promise<boolean>;
  /** Lets the next one go on; to be called in any case. */
  end(isWritten: boolean): void;
}
