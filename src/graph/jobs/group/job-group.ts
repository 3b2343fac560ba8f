import { LacunaError } from '../../../errors/index.js';
import { type EndStage, type JobControl, stoppedError } from '../../../job/index.js';
import { onAbort } from '../../../util/index.js';
import type { BitmapChange, Changer } from '../../core/index.js';
import { type EndFailure, endTogether, type MakeEnd } from './job-end.js';
import { endAtLast, isBusy } from './quiet.js';

/** Why the jobs of a group could not end, and what one of them does about it. Nothing has changed. */
export interface Refusal {
  readonly error: unknown;
  /**
   * `tell`, who has asked for its end is told, and may ask again; `wait`, others are told; `ask`, nobody has asked, so a human is told, and it
   * is tried again; `fail`, nobody can do anything about it.
   */
  readonly next: 'tell' | 'wait' | 'ask' | 'fail';
}

/** One who has come to rest, so that all can end. */
interface Resting {
  readonly make: MakeEnd;
  readonly ended: (failure: EndFailure) => void;
  readonly refused: (refusal: Refusal) => void;
  readonly failed: (error: unknown) => void;
}

/** What a job is in its group. */
interface Place {
  /** How a job that works is told to stop. */
  stop: () => void;
  /** How one that goes on working beside is told to come to rest. */
  call: () => void;
  control: JobControl | undefined;
  /** It has done what it has to do; some keep that up to date. */
  hasArrived: boolean;
  /** A human has told it to end, who is told where that cannot be. */
  isTold: boolean;
  resting: Resting | undefined;
}

/**
 * Jobs that all succeed or all fail; one alone is a group too. A job that has done its work waits for the others; when all have, and were
 * told to where that is asked for, they end at one moment. Where one fails or is stopped, those that wait fail, and those that work are
 * stopped.
 */
export class JobGroup {
  readonly #changer: Changer;
  readonly #places: Place[] = [];
  #isManual = false;
  #isFinalized = false;
  #isOver = false;
  #finalizers: { resolve(): void; reject(error: unknown): void }[] = [];
  #failure: { readonly error: unknown } | undefined;
  /** What happens to bitmaps when all have succeeded, at the moment at which they end, and when one has failed. */
  readonly bitmaps: { readonly good: BitmapChange[]; readonly bad: BitmapChange[] } = {
    good: [],
    bad: [],
  };
  #hasUndone = false;

  constructor(changer: Changer) {
    this.#changer = changer;
  }

  /** Counts a job. @param autoFinalize the group ends by itself, as far as this job is asked. */
  join(autoFinalize = true): GroupMember {
    if (!autoFinalize) this.#isManual = true;
    const place: Place = {
      stop: () => {},
      call: () => {},
      control: undefined,
      hasArrived: false,
      isTold: false,
      resting: undefined,
    };
    this.#places.push(place);
    return new GroupMember(this, place);
  }

  get size(): number {
    return this.#places.length;
  }

  /** Whether nobody is waited for any more. */
  get mayEnd(): boolean {
    return this.#isComplete && (!this.#isManual || this.#isFinalized);
  }

  get #isComplete(): boolean {
    return this.#failure === undefined && this.#places.every(({ hasArrived }) => hasArrived);
  }

  /** Lets all of them end, as soon as they can. Resolves when they have ended, however. @throws where they cannot: nothing has changed. */
  async finalize(): Promise<void> {
    if (this.#isOver || this.#failure !== undefined) return;
    this.#isFinalized = true;
    const asked = new Promise<void>((resolve, reject) =>
      this.#finalizers.push({ resolve, reject }),
    );
    this.#look();
    return asked;
  }

  /** @internal */
  arrive(place: Place, control: JobControl): void {
    if (this.#failure !== undefined) throw this.#told();
    place.control = control;
    if (place.hasArrived) return;
    place.hasArrived = true;
    this.#look();
  }

  /** @internal A job that has arrived waits for the moment at which all end. */
  rest(place: Place, make: MakeEnd, control: JobControl): Promise<Refusal | undefined> {
    return new Promise((resolve, reject) => {
      const stopped = () => {
        if (place.resting === resting) this.#failWith(stoppedError(), [place]);
      };
      const settled = () => control.ending.removeEventListener('abort', stopped);
      const resting: Resting = {
        make,
        ended: (failure) => {
          settled();
          if (failure === undefined) resolve(undefined);
          else reject(failure.error);
        },
        refused: (refusal) => {
          settled();
          resolve(refusal);
        },
        failed: (error) => {
          settled();
          reject(error);
        },
      };
      place.resting = resting;
      if (this.#failure !== undefined) this.#fail(place, this.#told());
      else if (control.ending.aborted) stopped();
      else {
        onAbort(control.ending, stopped);
        this.#look();
      }
    });
  }

  /** @internal A job has failed and has ended: the others end too, and what was done to bitmaps at the beginning is undone. */
  async failed(error: unknown, control: JobControl): Promise<void> {
    this.#failWith(error, []);
    const { bad } = this.bitmaps;
    // Behind the moment at which all have ended, nothing is taken back.
    if (this.#isOver || this.#hasUndone || bad.length === 0) return;
    this.#hasUndone = true;
    await endAtLast(() => this.#changer.run(() => this.#changer.change({ bitmaps: bad })), control);
  }

  /** Somebody has come, or has told them to end. */
  #look(): void {
    if (this.#isOver || this.#failure !== undefined) return;
    const mayEnd = this.mayEnd;
    const stage: EndStage | undefined = !this.#isComplete
      ? 'waiting'
      : this.#isManual
        ? 'pending'
        : undefined;
    for (const { control, hasArrived } of this.#places) {
      if (stage !== undefined) control?.setStage(hasArrived ? stage : undefined);
    }
    if (!mayEnd) return;
    for (const { resting, call } of this.#places) if (resting === undefined) call();
    if (this.#places.every(({ resting }) => resting !== undefined)) void this.#endAll();
  }

  async #endAll(): Promise<void> {
    const all = this.#places.map((place) => place.resting!);
    // From now on they are done as soon as all is done.
    for (const place of this.#places) place.resting = undefined;
    const changer = this.#changer;
    const makers = all.map(({ make }) => make);
    let failures: EndFailure[] | undefined;
    try {
      await changer.run(async () => {
        failures = await endTogether(changer, makers, this.bitmaps.good);
      });
    } catch (error) {
      if (failures === undefined) return this.#refuse(all, error);
      // Behind the moment, so they have ended.
      failures[0] ??= { error };
    }
    this.#isOver = true;
    for (const [i, { ended }] of all.entries()) ended(failures![i]);
    this.#tellFinalizers((each) => each.resolve());
  }

  /** Nothing has changed. Who has asked for it is told, and may ask again. */
  #refuse(all: readonly Resting[], error: unknown): void {
    if (this.#isManual) {
      this.#isFinalized = false;
      this.#tellFinalizers((each) => each.reject(error));
      for (const { refused } of all) refused({ error, next: 'wait' });
      return;
    }
    const isTold = this.#places.some((place) => place.isTold);
    for (const [i, place] of this.#places.entries()) {
      // A human is told once.
      const otherwise = isTold || i > 0 ? 'wait' : 'ask';
      const next = place.isTold ? 'tell' : isTold || isBusy(error) ? otherwise : 'fail';
      place.hasArrived = next === 'wait';
      if (!place.hasArrived) place.control?.setStage(undefined);
      all[i].refused({ error, next });
    }
  }

  #tellFinalizers(tell: (each: { resolve(): void; reject(error: unknown): void }) => void): void {
    const all = this.#finalizers;
    this.#finalizers = [];
    for (const each of all) tell(each);
  }

  /** @param by are told of the failure itself. */
  #failWith(error: unknown, by: readonly Place[]): void {
    if (this.#failure !== undefined || this.#isOver) return;
    this.#failure = { error: error ?? stoppedError() };
    for (const place of this.#places) {
      this.#fail(place, by.includes(place) ? this.#failure.error : this.#told());
    }
    // One that is alone has failed by itself, or was stopped.
    if (this.size > 1) for (const { stop } of this.#places) stop();
    this.#tellFinalizers((each) => each.resolve());
  }

  #fail(place: Place, error: unknown): void {
    const { resting } = place;
    place.resting = undefined;
    resting?.failed(error);
  }

  #told(): LacunaError {
    const cause = this.#failure?.error;
    const why = cause instanceof Error ? cause.message : String(cause);
    const message = `another job of its group has failed, and all succeed or none: ${why}`;
    return new LacunaError('ERR_JOB_STOPPED', message, { cause });
  }
}

/** A job in its group, which may be it alone. */
export class GroupMember {
  readonly #group: JobGroup;
  readonly #place: Place;

  /** @internal */
  constructor(group: JobGroup, place: Place) {
    this.#group = group;
    this.#place = place;
  }

  /** How the job is stopped when another one fails. */
  set stop(stop: () => void) {
    this.#place.stop = stop;
  }

  /** Lets all jobs of the group end; see `GraphJob.finalize`. */
  finalize(): Promise<void> {
    return this.#group.finalize();
  }

  /** Whether it ends with no others. */
  get isAlone(): boolean {
    return this.#group.size === 1;
  }

  /**
   * The work is done. Waits until all jobs of the group end, and has ended with them then; a human is asked where that is not possible.
   *
   * @param isPatient a job that is alone fails otherwise, where writes do not end in time.
   */
  async end(make: MakeEnd, control: JobControl, isPatient = true): Promise<void> {
    for (;;) {
      this.arrive(control);
      const refusal = await this.rest(make, control);
      if (refusal === undefined) return;
      if (!isPatient && this.isAlone && refusal.next === 'ask') throw refusal.error;
      await heed(refusal, control);
    }
  }

  /**
   * The work is done, as it was asked for, or by itself; it is kept up to date until all may end.
   *
   * @param call of a job that was told to end: it is called when the job shall come to rest.
   */
  arrive(control: JobControl, call?: () => void): void {
    this.#place.isTold = call !== undefined;
    this.#place.call = call ?? this.#place.call;
    this.#group.arrive(this.#place, control);
  }

  /** Whether the job shall come to rest. */
  get mayEnd(): boolean {
    return this.#group.mayEnd;
  }

  /** Waits until all jobs of the group end. Where they cannot, the job goes on working, and comes again. */
  rest(make: MakeEnd, control: JobControl): Promise<Refusal | undefined> {
    return this.#group.rest(this.#place, make, control);
  }

  /** The job has failed, and has left the graph. */
  failed(error: unknown, control: JobControl): Promise<void> {
    return this.#group.failed(error, control);
  }
}

/** What a job does about it that ends by itself. @throws where it cannot end, or is stopped while it waits. */
export async function heed({ error, next }: Refusal, control: JobControl): Promise<void> {
  if (next === 'fail') throw error;
  if (next === 'ask') await control.waitAbout(error as Error);
}

/** A job has failed: it leaves the graph, and the others of its group fail too. @throws its failure, in any case. */
export async function endInGroup(
  leave: () => Promise<void>,
  { error, member, control }: { error: unknown; member: GroupMember; control: JobControl },
): Promise<never> {
  try {
    await leave();
  } finally {
    // The first failure says more.
    await member.failed(error, control).catch(() => {});
  }
  throw error;
}
