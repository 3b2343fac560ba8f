/**
 * Carries out a plan: zero, move, flush. Normally in one round; when a device fails and the policy of its side
 * says so, in further ones, each of which begins with a plan that is exact.
 *
 * What is known to be durable is kept beside the plan, because an answer to a write is no promise: a server that
 * crashes forgets what it had not flushed. When a round does not end with a flush over every connection that
 * wrote, all that was written since the last such flush is dirty again.
 */
import type { Bitmap } from '../../bitmap/index.js';
import { shareDevice } from '../../block/index.js';
import { abortedError } from '../../errors/index.js';
import { type JobControl, stoppedError } from '../../job/index.js';
import type { Arena } from '../../wasm/index.js';
import type { Control } from '../control/index.js';
import { reconnects, type Source, type Target } from '../ends/index.js';
import {
  type BlockDigests,
  digestBlocks,
  dropKnownZero,
  type Ends,
  LeftOut,
  move,
  type Shared,
  type Transfer,
  writeZeroes,
} from '../move/index.js';
import {
  backoffOf,
  type CopyOptions,
  type CopyPhase,
  type ErrorRules,
  isLost,
  onSide,
  rulesOf,
  type Side,
  SideError,
  withoutSide,
} from '../options/index.js';
import type { Plan } from '../plan/index.js';
import type { Remains, Resumption } from '../resume/index.js';
import { type CrewOutcome, chooseThreads } from '../threads/index.js';
import { chooseTransfer } from './transfer.js';

/** A plan, or what an earlier run has left of one. */
export type WorkToDo = Pick<Plan, 'data' | 'zero' | 'warnings'> & Partial<Pick<Plan, 'totals'>>;

export interface RoundsOptions {
  options: CopyOptions;
  ends: CopyEnds;
  work: CopyWork;
  arena: Arena;
  control: Control;
  job: JobControl;
}

/** The two sides of a copy, which may be opened anew. */
export interface CopyEnds {
  source: Source;
  target: Target;
}

/** What a copy has to do, and who is told of what was done. */
export interface CopyWork {
  plan: WorkToDo;
  /** Bytes of the plan, and those that earlier runs had done. */
  plannedBytes: number;
  resumedBytes: number;
  /** Keeps what remains for a later run, if that was asked for. */
  resumption: Resumption | undefined;
  /** Takes the digests of what is moved; a block that is moved twice comes twice. */
  digest: BlockDigests | undefined;
}

export class Rounds {
  /** What failed and was given up, for the report ... */
  leftOut = new LeftOut();
  /** ... and exactly. */
  readonly leftOutMap: Bitmap;
  phase: CopyPhase = 'zero';
  /** Bytes that must be moved or zeroed, those that are done included. */
  totalBytes = 0;
  threads = 0;
  readonly #given: RoundsOptions;
  readonly #rules: ErrorRules;
  /** What is not yet known to be durable, or was left out; the plan itself says what was not even written. */
  #unconfirmed: Remains;
  #restarts = 0;
  #round = 0;
  /** Bytes of the whole copy, as a later run counts them. */
  #wholeBytes = 0;
  #lost: Side | undefined;
  /** What a copy in sequence writes like data, and knows to be zero. */
  #unread: Bitmap | undefined;

  constructor(given: RoundsOptions) {
    this.#given = given;
    this.#rules = rulesOf(given.options);
    const { plan } = given.work;
    this.leftOutMap = plan.data.snapshot();
    this.leftOutMap.resetAll();
    this.#unconfirmed = this.#remaining();
  }

  /** Returns warnings. Throws when the copy cannot go on; what remains to be done is in the plan then. */
  async run(): Promise<string[]> {
    const { options, work, control } = this.#given;
    const { plan } = work;
    this.threads = await chooseThreads(options, this.#devices, plan.data);
    for (;;) {
      const { error, flushed, warnings } = await this.#attempt();
      // After a failure the plan may be locked by a thread that was lost.
      if (error === undefined && plan.data.count + plan.zero.count === 0) return warnings;
      await this.#recover(error, flushed);
      if (!flushed) this.#takeBack();
      // What nobody has asked to be made durable can be lost at any time.
      else if (this.#given.options.flush ?? true) this.#confirm();
      control.start();
      if (this.#given.job.ending.aborted) control.stop();
      this.#round++;
    }
  }

  /** Gives back what the arena holds for this. */
  free(): void {
    const { data, zero } = this.#unconfirmed;
    for (const bitmap of [data, zero, this.leftOutMap, this.#unread]) bitmap?.free();
  }

  async #attempt(): Promise<CrewOutcome> {
    const { job } = this.#given;
    const { resumption } = this.#given.work;
    const outcome = await this.#zeroAndMove();
    try {
      // Fails where a flush has failed meanwhile: the next one may succeed without what that one has lost.
      if (resumption) await onSide('target', resumption.end());
      // What did not flush there will not here; and nothing is promised to somebody who cancels.
      if (!outcome.flushed || job.signal.aborted) return { ...outcome, flushed: false };
      return { ...outcome, warnings: [...outcome.warnings, ...(await this.#flush())] };
    } catch (error) {
      return { ...outcome, error: outcome.error ?? error, flushed: false };
    }
  }

  async #zeroAndMove(): Promise<CrewOutcome> {
    try {
      await this.#reopen();
      const targetIsZero = await this.#zero();
      // Threads would only be started to find that there is nothing to do.
      if (this.#given.control.stopped) return { flushed: true, warnings: [] };
      this.phase = 'move';
      const { holdsOldData = false } = this.#given.ends.target;
      return await this.#move(targetIsZero && !holdsOldData);
    } catch (error) {
      return { error, flushed: !(error instanceof SideError && isLost(error.cause)), warnings: [] };
    }
  }

  async #reopen(): Promise<void> {
    const { source, target } = this.#given.ends;
    if (this.#lost === 'source') await onSide('source', source.reopen());
    if (this.#lost === 'target') await onSide('target', target.reopen());
    this.#lost = undefined;
  }

  /** Makes the target zero where it must be; returns whether all of it is known to read as zero then. */
  async #zero(): Promise<boolean> {
    const { options, ends, work, job, control } = this.#given;
    const { target } = ends;
    const { resumption, resumedBytes, plannedBytes } = work;
    const { data, zero } = work.plan;
    this.phase = 'zero';
    const isZero = resumption?.saved?.state.targetIsZero ?? target.isZero;
    if (isZero) zero.resetAll();
    else await onSide('target', dropKnownZero(target.device, zero, job.ending));
    const totalBytes = data.dirtyBytes + zero.dirtyBytes + resumedBytes;
    this.totalBytes = doneBytes(control) + totalBytes;
    if (options.sequential) {
      // In order, what must be zero is a part of the data; but it need not be read.
      if (this.#unread === undefined) this.#unread = zero.snapshot();
      else this.#unread.merge(zero);
      data.merge(zero);
      zero.resetAll();
    }
    if (this.#round === 0) this.#wholeBytes = totalBytes;
    const begun = resumption?.begin({
      target,
      remains: this.#remaining(),
      plannedBytes,
      totalBytes: this.#wholeBytes,
      threads: this.threads,
      failed: () => control.stop(),
    });
    if (begun) await onSide('target', begun);
    if (zero.count === 0) return isZero;

    const zeroes = { zero, remains: resumption?.remains?.zero, ...this.#losses };
    const policy = { rules: this.#rules, unmap: options.unmap ?? true };
    // Range by range: what lies between may have to be read first, from this very disk under another name.
    await writeZeroes(target.device, zeroes, policy, this.#shared());
    return false;
  }

  async #move(targetIsZero: boolean): Promise<CrewOutcome> {
    const { options, work } = this.#given;
    const load = { threads: this.threads, bytes: work.plan.data.dirtyBytes };
    const transfer = chooseTransfer(options, this.#devices, targetIsZero, load);
    return await (this.threads === 0 ? this.#moveHere(transfer) : this.#moveInThreads(transfer));
  }

  async #moveHere(transfer: Transfer): Promise<CrewOutcome> {
    const { plan, digest, resumption } = this.#given.work;
    const outcome = await move({
      ends: this.#devices,
      work: {
        plan: plan.data,
        unread: this.#unread,
        remains: resumption?.remains?.data,
        moved: digest && ((offset, bytes) => digestBlocks(offset, bytes, digest)),
        ...this.#losses,
      },
      // The flush of this thread's device is the last step of every round.
      transfer: { ...transfer, flush: false },
      shared: this.#shared(),
    });
    return { ...outcome, warnings: [] };
  }

  async #moveInThreads(transfer: Transfer): Promise<CrewOutcome> {
    const { work, arena, control, job } = this.#given;
    const { plan, digest, resumption } = work;
    const { source, target } = this.#devices;
    // Loaded when it is needed: the pool takes longer to load than a small copy takes.
    const { workInThreads } = await import('../threads/crew.js');
    target.changedElsewhere();
    return await workInThreads({
      threads: this.threads,
      ends: { source: shareDevice(source), target: shareDevice(target) },
      task: { transfer },
      memory: {
        arena: arena.shared,
        plan: plan.data.handle,
        remains: resumption?.remains?.data.handle,
        unread: this.#unread?.handle,
        leftOutMap: this.leftOutMap.handle,
        control: control.memory,
      },
      control,
      results: { leftOut: this.leftOut, digest, lost: () => resumption?.abort() },
      signal: job.signal,
    });
  }

  /** Makes durable what was written; returns warnings. */
  async #flush(): Promise<string[]> {
    const { options, ends, control, job } = this.#given;
    const { device } = ends.target;
    const wanted = options.flush ?? true;
    if (!wanted && !reconnects(device)) return [];
    this.phase = 'flush';
    await onSide('target', control.flush(device, job.signal));
    if (device.capabilities.flush || !wanted) return [];
    return [`${device.name} cannot flush, so nobody knows when the copy will be durable there`];
  }

  /** The devices as they are open now. */
  get #devices(): Ends {
    const { source, target } = this.#given.ends;
    return { source: source.device, target: target.device };
  }

  get #losses() {
    const { leftOut, leftOutMap } = this;
    return { leftOut, leftOutMap };
  }

  /** For the calling thread, whose row is the first. */
  #shared(): Shared {
    const { arena, control, job } = this.#given;
    return { arena, control, counters: control.row(0), signal: job.signal };
  }

  /** Waits until it makes sense to go on, or throws where it does not. */
  async #recover(error: unknown, flushed: boolean): Promise<void> {
    const { control, job } = this.#given;
    const { signal, ending } = job;
    if (signal.aborted) throw abortedError(signal);
    if (error === undefined || ending.aborted) throw stoppedError(withoutSide(error));
    if (!(error instanceof SideError)) throw error;
    const { side, cause } = error;
    const rule = this.#rules[side];
    const isGone = isLost(cause);
    const startsOver = (isGone || !flushed) && this.#restarts < rule.attempts;
    if (!startsOver && rule.policy !== 'stop') throw cause;
    control.start();
    if (!startsOver) await job.waitAbout(cause);
    else if (!(await control.delay(backoffOf(rule, this.#restarts++)))) {
      throw signal.aborted ? abortedError(signal) : stoppedError(cause);
    }
    if (isGone) this.#lost = side;
  }

  /** What the plan holds, and what was left out of it: whoever begins again from here tries that again. */
  #remaining(): Remains {
    const { data, zero } = this.#given.work.plan;
    const remaining = { data: data.snapshot(), zero: zero.snapshot() };
    remaining.data.merge(this.leftOutMap);
    return remaining;
  }

  #confirm(): void {
    const { data, zero } = this.#unconfirmed;
    this.#unconfirmed = this.#remaining();
    data.free();
    zero.free();
  }

  #takeBack(): void {
    const { work, control } = this.#given;
    const { plan } = work;
    control.forgetUnflushed();
    plan.data.merge(this.#unconfirmed.data);
    plan.zero.merge(this.#unconfirmed.zero);
    this.leftOut = new LeftOut();
    this.leftOutMap.resetAll();
  }
}

/** Bytes that are done with, one way or another. */
export function doneBytes(control: Control): number {
  const { movedBytes, zeroedBytes, skippedBytes, leftOutBytes } = control.total();
  return movedBytes + zeroedBytes + skippedBytes + leftOutBytes;
}
