import { LacunaError } from '../../errors/index.js';
import type { Bitmap } from '../bits/index.js';
import { Content } from './content.js';
import type { Journal } from './journal.js';

/** @internal What was written since a moment, apart from the bitmaps of the device; see DirtyBitmaps.watch. */
export class WriteWatch {
  readonly #content: Content;
  readonly #unrecorded: Bitmap;
  readonly #end: () => void;
  #isLost = false;

  /**
   * @internal
   * @param bits empty, and the watch's own from now on
   * @param end is called when it is freed
   * @throws LacunaError ERR_ARENA_FULL
   */
  constructor(journal: Journal, bits: Bitmap, end: () => void) {
    this.#content = new Content(journal, bits);
    this.#end = end;
    try {
      this.#content.enable();
      this.#unrecorded = bits.snapshot();
    } catch (error) {
      this.#content.free();
      throw error;
    }
  }

  /**
   * What was recorded until now. It is only to be read, and at once.
   *
   * @throws LacunaError ERR_ARENA_FULL, also where there was no memory for a write.
   */
  look(): Bitmap {
    this.#checkWhole();
    return this.#content.look();
  }

  /** Changes until now that no bitmap records. It is only to be read, and at once. @throws as {@link look} */
  get unrecorded(): Bitmap {
    this.#checkWhole();
    return this.#unrecorded;
  }

  /** A change is made that no bitmap records. */
  note(offset: number, length: number): void {
    try {
      this.#unrecorded.set(offset, length);
    } catch (error) {
      if (!(error instanceof LacunaError) || error.code !== 'ERR_ARENA_FULL') throw error;
      this.lose();
    }
  }

  /** A write was made that could not be recorded. */
  lose(): void {
    this.#isLost = true;
  }

  /** Records no more. To be called once. */
  free(): void {
    this.#end();
    this.#content.free();
    this.#unrecorded.free();
  }

  #checkWhole(): void {
    if (!this.#isLost) return;
    const message = 'a write was made that could not be recorded for want of memory: try again';
    throw new LacunaError('ERR_ARENA_FULL', message);
  }
}
