import type { JobControl, JobCounts } from '../../../job/index.js';
import type { Changer, Changes } from '../../core/index.js';
import { SideError } from '../../filters/index.js';
import { type Ending, endInGroup, type GroupMember, heed, Wish } from '../group/index.js';
import { planLayers } from '../layers/index.js';
import { lastRoundOf, type RoundPlan, type Rounds, roundsOf, untilTold } from '../rounds/index.js';
import { CommitPlace } from './commit-place.js';
import type { CheckedCommit, CommitJobProgress, CommitJobReport } from './options.js';

interface With {
  readonly control: JobControl;
  readonly member: GroupMember;
}

/** One run of a commit job. */
export class CommitRun {
  readonly wish = new Wish();
  readonly #changer: Changer;
  readonly #options: CheckedCommit;
  /** As soon as it is open. */
  #entry: CommitPlace | undefined;
  #place: CommitPlace | undefined;
  #rounds: Rounds | undefined;
  #hiddenBytes = 0;
  #isReady = false;

  constructor(changer: Changer, options: CheckedCommit) {
    this.#changer = changer;
    this.#options = options;
  }

  counted(): JobCounts<CommitJobProgress> {
    const place = this.#place;
    return {
      totalBytes: this.#rounds?.totalBytes ?? 0,
      doneBytes: this.#rounds?.doneBytes ?? 0,
      isReady: this.#isReady,
      dirtyBytes: place === undefined || place.isGone ? 0 : place.copy.dirtyBytes,
    };
  }

  /** Opens what it needs, and tells what happens at its beginning. */
  async prepare(): Promise<Partial<Changes>> {
    this.#entry = await CommitPlace.open(this.#changer, this.#options);
    return this.#entry.beginning;
  }

  /** Takes back {@link prepare}; harmless where that has failed. */
  async takeBack(): Promise<void> {
    await this.#entry?.takeBack();
  }

  /** Behind the beginning. @param member with whom it ends. */
  async work(control: JobControl, member: GroupMember): Promise<CommitJobReport> {
    const place = this.#entry!;
    try {
      await place.flushBase(control.ending);
      const rounds = this.#begin(place, control);
      const ending = place.chain.isActive
        ? await this.#untilTold(place, rounds, { control, member })
        : await this.#once(place, rounds, { control, member });
      return this.#report(place, rounds, ending);
    } catch (error) {
      return await endInGroup(() => place.giveUp(control), { error, member, control });
    } finally {
      this.#place = undefined;
      this.#rounds?.free();
    }
  }

  #begin(place: CommitPlace, control: JobControl): Rounds {
    const { copy, root } = place;
    this.#place = place;
    this.#rounds = roundsOf({ copy, root, control, policies: this.#options, wish: this.wish });
    return this.#rounds;
  }

  #untilTold(place: CommitPlace, rounds: Rounds, { control, member }: With): Promise<Ending> {
    return untilTold({
      ...{ place, rounds, control, member, wish: this.wish },
      onTargetError: this.#options.onTargetError,
      firstPlan: () => this.#firstPlan(place, control),
      becameReady: async () => {
        this.#isReady = true;
      },
    });
  }

  /** Nobody writes the images, so they are put into the base once. */
  async #once(place: CommitPlace, rounds: Rounds, { control, member }: With): Promise<Ending> {
    await rounds.first(() => this.#firstPlan(place, control));
    for (;;) {
      await this.#settle(place, rounds, control);
      await control.next();
      member.arrive(control);
      const { last, giveUp } = lastRoundOf(place, rounds);
      const refusal = await member.rest(() => place.ending('complete', last), control);
      if (refusal === undefined) return 'complete';
      await giveUp();
      await heed(refusal, control);
    }
  }

  /** Makes all of it durable. What the base has forgotten, with its connection say, is dirty again. */
  async #settle(place: CommitPlace, rounds: Rounds, control: JobControl): Promise<void> {
    for (;;) {
      while (place.copy.dirtyBytes > 0) await rounds.next();
      try {
        this.#hiddenBytes = await place.hideTail(control);
        await place.flush();
        if (place.copy.dirtyBytes === 0) return;
      } catch (error) {
        if (!(error instanceof SideError)) throw error;
        if (this.#options.onTargetError !== 'stop') throw error.cause;
        await control.waitAbout(error.cause);
      }
    }
  }

  #firstPlan({ root, chain }: CommitPlace, control: JobControl): Promise<RoundPlan> {
    return planLayers(root, { from: 1, to: chain.images.length }, control);
  }

  #report(place: CommitPlace, rounds: Rounds, ending: Ending): CommitJobReport {
    const { movedBytes, zeroedBytes } = rounds;
    return {
      completed: ending === 'complete',
      movedBytes,
      zeroedBytes: zeroedBytes + this.#hiddenBytes,
      bitmaps: place.carried,
      dropped: place.dropped,
      warnings: place.warnings,
    };
  }
}
