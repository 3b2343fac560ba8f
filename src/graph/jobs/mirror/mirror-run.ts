import { Bitmap } from '../../../bitmap/index.js';
import type { CopyMode } from '../../../block/index.js';
import { plan } from '../../../copy/index.js';
import type { JobControl, JobCounts } from '../../../job/index.js';
import type { Changer, Changes } from '../../core/index.js';
import { type Ending, endInGroup, type GroupMember, Wish } from '../group/index.js';
import { type RoundPlan, type Rounds, roundsOf, untilTold } from '../rounds/index.js';
import { MirrorPlace } from './mirror-place.js';
import type { CheckedMirror, MirrorProgress, MirrorReport } from './options.js';

/** One run of a mirror job. */
export class MirrorRun {
  readonly wish = new Wish();
  readonly #changer: Changer;
  readonly #options: CheckedMirror;
  #mode: CopyMode;
  /** As soon as it is open. */
  #entry: MirrorPlace | undefined;
  /** While writes may go to the target. */
  #place: MirrorPlace | undefined;
  #rounds: Rounds | undefined;
  #isReady = false;

  constructor(changer: Changer, options: CheckedMirror) {
    this.#changer = changer;
    this.#options = options;
    this.#mode = options.copyMode;
  }

  setMode(mode: CopyMode): void {
    this.#mode = mode;
    this.#place?.setMode(mode);
  }

  counted(): JobCounts<MirrorProgress> {
    return {
      totalBytes: this.#rounds?.totalBytes ?? 0,
      doneBytes: this.#rounds?.doneBytes ?? 0,
      isReady: this.#isReady,
      copyMode: this.#mode,
      dirtyBytes: this.#place?.dirtyBytes ?? 0,
    };
  }

  /** Opens what it needs, and tells what happens at its beginning. */
  async prepare(): Promise<Partial<Changes>> {
    this.#entry = await MirrorPlace.open(this.#changer, this.#options);
    return this.#entry.beginning;
  }

  /** Takes back {@link prepare}; harmless where that has failed. */
  async takeBack(): Promise<void> {
    await this.#entry?.takeBack();
  }

  /** Behind the beginning. @param member with whom it ends. */
  async work(control: JobControl, member: GroupMember): Promise<MirrorReport> {
    const place = this.#entry!;
    try {
      await place.flushTarget(control.ending);
      const rounds = this.#begin(place, control);
      const ending = await untilTold({
        ...{ place, rounds, control, member, wish: this.wish },
        onTargetError: this.#options.onTargetError,
        firstPlan: async () => {
          const made = await this.#firstPlan(place, control);
          place.planned();
          return made;
        },
        becameReady: async () => {
          await place.recordTarget(control);
          this.#isReady = true;
        },
      });
      return this.#report(place, rounds, ending);
    } catch (error) {
      return await endInGroup(() => place.giveUp(control), { error, member, control });
    } finally {
      this.#place = undefined;
      this.#rounds?.free();
    }
  }

  #begin(place: MirrorPlace, control: JobControl): Rounds {
    const { copy, root } = place;
    this.#place = place;
    place.setMode(this.#mode);
    this.#rounds = roundsOf({ copy, root, control, policies: this.#options, wish: this.wish });
    return this.#rounds;
  }

  async #firstPlan(place: MirrorPlace, control: JobControl): Promise<RoundPlan> {
    const { sync } = this.#options;
    const { root: source } = place;
    const { ending: signal } = control;
    if (sync === 'full' || sync === 'top') return plan({ source, mode: sync, signal });
    if (sync === 'none') {
      const empty = () => new Bitmap({ size: source.size, granularity: 65_536 });
      return { data: empty(), zero: empty() };
    }
    const bitmap = place.frozen();
    try {
      return await plan({ source, mode: 'incremental', bitmap, signal });
    } finally {
      bitmap.free();
    }
  }

  #report(place: MirrorPlace, rounds: Rounds, ending: Ending): MirrorReport {
    const { movedBytes, zeroedBytes, unread } = rounds;
    return {
      completed: ending === 'complete',
      target: place.target.name,
      movedBytes,
      zeroedBytes,
      unreadBytes: unread.dirtyBytes,
      bitmaps: place.carried,
    };
  }
}
