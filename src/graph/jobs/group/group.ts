import { LacunaError } from '../../../errors/index.js';
import { type JobControl, stoppedError } from '../../../job/index.js';
import { onAbort } from '../../../util/index.js';
import type { BitmapChange, Changer, Node, Root } from '../../core/index.js';
import { endAtLast } from '../rounds/index.js';

/** What a job does to the graph at its end. */
export interface JobEnd {
  readonly roots: readonly Root[];
  readonly filters: readonly Node[];
  /** Nodes that nobody uses any more; they are closed. */
  readonly unused: readonly Node[];
  readonly bitmaps: readonly BitmapChange[];
}

/** Ends jobs, all of them at one moment. To be called in a turn. */
export async function endTogether(changer: Changer, ends: readonly JobEnd[]): Promise<void> {
  for (const { roots } of ends) for (const root of roots) await changer.leave(root);
  await changer.removeFilters(
    ends.flatMap(({ filters }) => filters),
    {
      bitmaps: ends.flatMap(({ bitmaps }) => bitmaps),
      unused: ends.flatMap(({ unused }) => unused),
    },
  );
}

/** How a job that was ended with the others has ended. */
type Ended = { readonly error: unknown } | undefined;

interface Arrived {
  readonly end: () => JobEnd;
  readonly ended: (failure: Ended) => void;
  readonly refused: (error: unknown) => void;
}

/**
 * Jobs that all succeed or all fail. One that has done its work waits for the others; when all have, they end at one moment. Where one
 * fails or is stopped, those that wait fail, and those that work are stopped.
 */
export class JobGroup {
  readonly #changer: Changer;
  readonly #arrived = new Set<Arrived>();
  readonly #stops: (() => void)[] = [];
  #missing = 0;
  #failure: unknown;
  /** What happens to bitmaps when all have succeeded, at the moment at which they end, and when one has failed. */
  readonly bitmaps: { readonly good: BitmapChange[]; readonly bad: BitmapChange[] } = {
    good: [],
    bad: [],
  };
  #hasUndone = false;

  constructor(changer: Changer) {
    this.#changer = changer;
  }

  /** Counts a job. @param stop stops it when another one fails. */
  add(stop: () => void): void {
    this.#missing++;
    this.#stops.push(stop);
  }

  /**
   * The work of a job is done. Resolves when it has ended with all others, also where that end has failed: with the failure then.
   *
   * @throws where it has not ended, because another one has failed or the job is to end.
   */
  async succeed(end: () => JobEnd, control: JobControl): Promise<Ended> {
    if (this.#failure !== undefined) throw this.#told();
    this.#missing--;
    return new Promise<Ended>((ended, refused) => {
      const arrived = { end, ended, refused };
      this.#arrived.add(arrived);
      onAbort(control.ending, () => {
        if (this.#arrived.has(arrived)) this.#failWith(stoppedError());
      });
      if (this.#missing === 0) void this.#endAll(control);
    });
  }

  /** A job has failed and has ended: the others end too, and what was done to bitmaps at the beginning is undone. */
  async fail(error: unknown, control: JobControl): Promise<void> {
    this.#failWith(error);
    const { bad } = this.bitmaps;
    if (this.#hasUndone || bad.length === 0) return;
    this.#hasUndone = true;
    await endAtLast(() => this.#changer.run(() => this.#changer.change({ bitmaps: bad })), control);
  }

  #failWith(error: unknown): void {
    if (this.#failure !== undefined) return;
    this.#failure = error ?? stoppedError();
    const waiting = [...this.#arrived];
    this.#arrived.clear();
    for (const { refused } of waiting) refused(this.#told());
    for (const stop of this.#stops) stop();
  }

  async #endAll(control: JobControl): Promise<void> {
    const all = [...this.#arrived];
    this.#arrived.clear();
    const bitmaps = { roots: [], filters: [], unused: [], bitmaps: this.bitmaps.good };
    try {
      const parts = () => [...all.map(({ end }) => end()), bitmaps];
      const changer = this.#changer;
      await endAtLast(() => changer.run(() => endTogether(changer, parts())), control);
      for (const { ended } of all) ended(undefined);
    } catch (error) {
      for (const { ended } of all) ended({ error });
    }
  }

  #told(): LacunaError {
    const cause = this.#failure;
    const why = cause instanceof Error ? cause.message : String(cause);
    const message = `another job of its group has failed, and all succeed or none: ${why}`;
    return new LacunaError('ERR_JOB_STOPPED', message, { cause });
  }
}
