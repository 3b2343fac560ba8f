import { LacunaError } from '../../errors/index.js';
import type { Bitmap } from '../bits/index.js';
import type { Content } from './content.js';

/** @internal What was recorded since a moment, for somebody who is no bitmap of the device; see DirtyBitmaps.watch. */
export class WriteWatch {
  readonly #content: Content;
  readonly #end: (watch: WriteWatch) => void;
  #isLost = false;

  /**
   * @internal
   * @param end is called when it is freed
   * @throws LacunaError ERR_ARENA_FULL
   */
  constructor(content: Content, end: (watch: WriteWatch) => void) {
    this.#content = content;
    this.#end = end;
    try {
      content.enable();
    } catch (error) {
      content.free();
      throw error;
    }
  }

  /**
   * What was recorded until now. It is only to be read, and at once.
   *
   * @throws LacunaError ERR_ARENA_FULL, also where there was no memory for a write.
   */
  look(): Bitmap {
    if (!this.#isLost) return this.#content.look();
    const message = 'a write was made that could not be recorded for want of memory: try again';
    throw new LacunaError('ERR_ARENA_FULL', message);
  }

  /** A write was made that could not be recorded. */
  lose(): void {
    this.#isLost = true;
  }

  /** Records no more. To be called once. */
  free(): void {
    this.#end(this);
    this.#content.free();
  }
}
