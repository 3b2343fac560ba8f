import { setTimeout as sleep } from 'node:timers/promises';
import { Bitmap } from '../../../bitmap/index.js';
import type { CopyMode } from '../../../block/index.js';
import { plan } from '../../../copy/index.js';
import type { JobControl, JobCounts } from '../../../job/index.js';
import type { Changer } from '../../core/index.js';
import { type Ending, type RoundPlan, Rounds, Wish } from '../rounds/index.js';
import { MirrorPlace } from './mirror-place.js';
import type { CheckedMirror, MirrorProgress, MirrorReport } from './options.js';

/** So little is copied while the writers wait. */
const LITTLE = 4 * 1024 * 1024;
/** Between two rounds of a mirror that is ready: what is written again and again is copied once. */
const PACE_MS = 100;
/** The longest pause after the target has failed. */
const LONGEST_PAUSE_MS = 10_000;

/** One run of a mirror job. */
export class MirrorRun {
  readonly wish = new Wish();
  readonly #changer: Changer;
  readonly #options: CheckedMirror;
  #mode: CopyMode;
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

  async work(control: JobControl): Promise<MirrorReport> {
    const place = await this.#changer.run(() => MirrorPlace.begin(this.#changer, this.#options));
    try {
      const rounds = this.#begin(place, control);
      const ending = await this.#untilTold(place, rounds, control);
      return this.#report(place, rounds, ending);
    } catch (error) {
      await place.giveUp(control);
      throw error;
    } finally {
      this.#place = undefined;
      this.#rounds?.free();
    }
  }

  #begin(place: MirrorPlace, control: JobControl): Rounds {
    const { copy, root } = place;
    this.#place = place;
    place.setMode(this.#mode);
    copy.isStopped = () => control.isPaused;
    copy.onNews = () => this.wish.tell();
    const rounds = new Rounds({
      ...{ copy, control, size: root.size, policies: this.#options },
      pass: (work) => root.pass(work),
      plan: (bitmap, isDrained) =>
        plan({
          source: isDrained ? root.edge : root,
          ...{ mode: 'incremental', bitmap, signal: control.ending },
        }),
    });
    this.#rounds = rounds;
    return rounds;
  }

  /** Round after round, until the job has ended as it was told to. */
  async #untilTold(place: MirrorPlace, rounds: Rounds, control: JobControl): Promise<Ending> {
    const { wish } = this;
    const { copy } = place;
    await rounds.first(async () => {
      const made = await this.#firstPlan(place, control);
      place.planned();
      return made;
    });
    for (let failures = 0; ; ) {
      await control.next();
      if (copy.broken !== undefined) throw copy.broken;
      await this.#heedTarget(place, control);
      failures = rounds.hasLeftOut ? failures + 1 : 0;
      if (failures > 0) {
        await pause(Math.min(LONGEST_PAUSE_MS, PACE_MS * 2 ** failures), control);
      } else if (rounds.remainingBytes <= LITTLE) {
        this.#becomeReady(control);
        const ending = wish.ending;
        if (ending !== undefined && (await this.#tryTo(ending, place, rounds))) return ending;
        if (rounds.remainingBytes === 0) {
          await wish.news(control.ending);
          continue;
        }
        if (wish.ending === undefined) await wish.asked(PACE_MS, control.ending);
      }
      await control.next();
      await rounds.next();
    }
  }

  /** What the writers have met at the target, the job hears from the filter. */
  async #heedTarget({ copy }: MirrorPlace, control: JobControl): Promise<void> {
    const failure = copy.takeFailure();
    if (failure === undefined) return;
    const { onTargetError } = this.#options;
    if (onTargetError === 'report') throw failure;
    if (onTargetError === 'stop') await control.waitAbout(failure);
  }

  #becomeReady(control: JobControl): void {
    this.#isReady = true;
    control.becomeReady();
  }

  /** Where it cannot be done, nothing has changed, who has asked is told why, and the job goes on. */
  async #tryTo(ending: Ending, place: MirrorPlace, rounds: Rounds): Promise<boolean> {
    let isOver = false;
    let last: Promise<void> | undefined;
    const work = async () => {
      // What was to be durable before it may have taken longer than the limit.
      if (isOver) throw new Error('the end took too long');
      last = rounds.last(() => isOver).then(() => place.checkSound());
      return last;
    };
    const finish = { work, unread: rounds.unread };
    try {
      await (ending === 'complete' ? place.complete(finish) : place.cancel(finish));
      return true;
    } catch (error) {
      if (place.isGone) throw error;
      isOver = true;
      this.wish.refuse(error);
      // What is under way when the limit is over ends first: a round is made at a time.
      await last?.catch(() => {});
      return false;
    }
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

/** Ends early where the job is to end, which who waits next finds. */
async function pause(ms: number, { ending }: JobControl): Promise<void> {
  await sleep(ms, undefined, { signal: ending }).catch(() => {});
}
