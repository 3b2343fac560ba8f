import { setTimeout as sleep } from 'node:timers/promises';
import type { Bitmap } from '../../../bitmap/index.js';
import type { DiskCopy } from '../../../block/index.js';
import type { JobControl } from '../../../job/index.js';
import type { Ending, GroupMember, JobEnd, Wish } from '../group/index.js';
import type { JobErrorPolicy } from './policies.js';
import type { RoundPlan, Rounds } from './rounds.js';

/** So little is copied while the writers wait. */
const LITTLE = 4 * 1024 * 1024;
/** Between two rounds of a job that is ready: what is written again and again is copied once. */
const PACE_MS = 100;
/** The longest pause after the target has failed. */
const LONGEST_PAUSE_MS = 10_000;

/** What is done last, while nobody writes. */
export interface LastRound {
  /** Makes the target equal. */
  readonly work: () => Promise<void>;
  /** What could not be read, by then. */
  readonly unread: Bitmap;
}

/** Where a job is in its graph, and how it goes from there. */
export interface LivePlace {
  readonly copy: DiskCopy;
  /** Whether the users go another way again. */
  readonly isGone: boolean;
  /** @throws where it is not known what differs. */
  checkSound(): void;
  /** How it goes: the target comes into use, or everybody uses what they have used before. To be called in a turn. */
  ending(ending: Ending, last: LastRound): Promise<JobEnd>;
}

/** A job that makes rounds until it is told to end. */
export interface LiveWork {
  readonly place: LivePlace;
  readonly rounds: Rounds;
  readonly wish: Wish;
  readonly member: GroupMember;
  readonly control: JobControl;
  readonly onTargetError: JobErrorPolicy;
  readonly firstPlan: () => Promise<RoundPlan>;
  readonly becameReady: () => Promise<void>;
}

/** Makes round after round, until the job has ended as it was told to. */
export async function untilTold(work: LiveWork): Promise<Ending> {
  const { place, rounds, wish, member, control } = work;
  const { copy } = place;
  await rounds.first(work.firstPlan);
  for (let failures = 0; ; ) {
    await control.next();
    if (copy.broken !== undefined) throw copy.broken;
    await heedTarget(work);
    failures = rounds.hasLeftOut ? failures + 1 : 0;
    if (failures > 0) {
      await pause(Math.min(LONGEST_PAUSE_MS, PACE_MS * 2 ** failures), control);
    } else if (rounds.remainingBytes <= LITTLE) {
      await work.becameReady();
      control.becomeReady();
      const ending = wish.ending;
      if (ending !== undefined && (await tryTo(ending, work))) return ending;
      if (rounds.remainingBytes === 0) {
        await wish.news(control.ending);
        continue;
      }
      const isCalled = wish.ending !== undefined && member.mayEnd;
      if (!isCalled) await wish.asked(PACE_MS, control.ending);
    }
    await control.next();
    await rounds.next();
  }
}

/** What the writers have met at the target, the job hears from the filter. */
async function heedTarget({ place, control, onTargetError }: LiveWork): Promise<void> {
  const failure = place.copy.takeFailure();
  if (failure === undefined) return;
  if (onTargetError === 'report') throw failure;
  if (onTargetError === 'stop') await control.waitAbout(failure);
}

/**
 * Ends it with its group, if all of that may end. Where it cannot be done, nothing has changed, the caller who has asked is told why, and
 * the job goes on.
 */
async function tryTo(ending: Ending, work: LiveWork): Promise<boolean> {
  const { place, rounds, wish, member, control } = work;
  member.arrive(control, () => wish.call());
  if (!member.mayEnd) return false;
  const { last, giveUp } = lastRoundOf(place, rounds);
  const refusal = await member.rest(() => place.ending(ending, last), control);
  if (refusal === undefined) return true;
  if (refusal.next === 'tell') wish.refuse(refusal.error);
  await giveUp();
  return false;
}

/** The last round, and what waits until it has ended after a failure: one round is made at a time. */
export function lastRoundOf(
  place: Pick<LivePlace, 'checkSound'>,
  rounds: Rounds,
): { last: LastRound; giveUp: () => Promise<void> } {
  let isOver = false;
  let round: Promise<void> | undefined;
  const work = async () => {
    // What was to be durable before it may have taken longer than the limit.
    if (isOver) throw new Error('the end took too long');
    round = rounds.last(() => isOver).then(() => place.checkSound());
    return round;
  };
  const giveUp = async () => {
    isOver = true;
    await round?.catch(() => {});
  };
  return { last: { work, unread: rounds.unread }, giveUp };
}

/** Ends early where the job is to end; the caller's next wait throws then. */
async function pause(ms: number, { ending }: JobControl): Promise<void> {
  await sleep(ms, undefined, { signal: ending }).catch(() => {});
}
