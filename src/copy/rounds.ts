/**
 * Carries out a plan: zero, move, flush. Normally in one round; when a device fails and the policy of its side
 * says so, in further ones, each of which begins with a plan that is exact.
 *
 * What is known to be durable is kept beside the plan, because an answer to a write is no promise: a server that
 * crashes forgets what it had not flushed. When a round does not end with a flush over every connection that
 * wrote, all that was written since the last such flush is dirty again.
 */
import type { Bitmap } from '../bitmap/index.js';
import type { Device } from '../block/index.js';
import { abortedError } from '../errors/index.js';
import type { Arena } from '../wasm/index.js';
import type { Control } from './control.js';
import type { CrewOutcome } from './crew.js';
import { type BlockDigests, digestBlocks } from './digest-tree.js';
import {
  backoffOf,
  type ErrorRules,
  isLost,
  onSide,
  SideError,
  withoutSide,
} from './error-policy.js';
import { LeftOut } from './left-out.js';
import { move } from './mover.js';
import type { CopyOptions, CopyPhase, Side } from './options.js';
import type { Plan } from './plan.js';
import { isSameDisk } from './same-disk.js';
import type { Source } from './source.js';
import { stoppedError } from './stopped.js';
import type { Target } from './target.js';
import { chooseThreads, chooseTransfer } from './transfer.js';
import type { DeviceAgain } from './worker.js';
import { dropKnownZero, writeZeroes, zeroWhole } from './zero-target.js';

export interface RoundsOptions {
  options: CopyOptions;
  rules: ErrorRules;
  source: Source;
  target: Target;
  plan: Plan;
  /** Only a part of the target is written: it must not be zeroed whole. */
  isPartial: boolean;
  arena: Arena;
  control: Control;
  /** Takes the digests of what is moved; a block that is moved twice comes twice. */
  digest: BlockDigests | undefined;
  signal: AbortSignal;
  /** Whether the caller wants the copy to end when it can. */
  stopAsked(): boolean;
  /** Told that a failure has stopped the copy until the caller resumes it; then told so with nothing. */
  onStopped(error: Error | undefined): void;
}

/** What is not yet known to be durable; the plan itself says what was not even written. */
interface Unconfirmed {
  data: Bitmap;
  zero: Bitmap;
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
  #unconfirmed: Unconfirmed;
  #restarts = 0;
  #round = 0;
  #lost: Side | undefined;

  constructor(given: RoundsOptions) {
    this.#given = given;
    const { plan } = given;
    this.leftOutMap = plan.data.snapshot();
    this.leftOutMap.resetAll();
    this.#unconfirmed = snapshotOf(plan);
  }

  /** Returns warnings. Throws when the copy cannot go on; what remains to be done is in the plan then. */
  async run(): Promise<string[]> {
    const { options, plan, source, target, control } = this.#given;
    const bytes = plan.data.dirtyBytes;
    const devices = { source: source.device, target: target.device };
    this.threads = chooseThreads(options, { ...devices, bytes });
    for (;;) {
      const { error, flushed, warnings } = await this.#attempt();
      const isDone = plan.data.count === 0 && plan.zero.count === 0;
      if (error === undefined && isDone) return warnings;
      if (flushed) this.#confirm();
      else this.#takeBack();
      await this.#recover(error, flushed);
      control.start();
      if (this.#given.stopAsked()) control.stop();
      this.#round++;
    }
  }

  /** Gives back what the arena holds for this. */
  free(): void {
    const { data, zero } = this.#unconfirmed;
    for (const bitmap of [data, zero, this.leftOutMap]) bitmap.free();
  }

  async #attempt(): Promise<CrewOutcome> {
    const outcome = await this.#zeroAndMove();
    // What did not flush there will not here; and nothing is promised to somebody who cancels.
    if (!outcome.flushed || this.#given.signal.aborted) return { ...outcome, flushed: false };
    try {
      return { ...outcome, warnings: [...outcome.warnings, ...(await this.#flush())] };
    } catch (error) {
      return { ...outcome, error: outcome.error ?? error, flushed: false };
    }
  }

  async #zeroAndMove(): Promise<CrewOutcome> {
    try {
      await this.#reopen();
      const targetIsZero = await this.#zero();
      this.phase = 'move';
      return await this.#move(targetIsZero);
    } catch (error) {
      return { error, flushed: !(error instanceof SideError && isLost(error.cause)), warnings: [] };
    }
  }

  async #reopen(): Promise<void> {
    const { source, target } = this.#given;
    if (this.#lost === 'source') await onSide('source', source.reopen());
    if (this.#lost === 'target') await onSide('target', target.reopen());
    this.#lost = undefined;
  }

  /** Makes the target zero where it must be; returns whether all of it is known to read as zero then. */
  async #zero(): Promise<boolean> {
    const { source, target, plan, isPartial, signal, control } = this.#given;
    const { data, zero } = plan;
    this.phase = 'zero';
    if (target.isZero) zero.resetAll();
    else await onSide('target', dropKnownZero(target.device, zero, signal));
    this.totalBytes = doneBytes(control) + data.dirtyBytes + zero.dirtyBytes;
    if (zero.count === 0) return target.isZero;

    const { counters } = this.#side();
    // In a later round the target may hold what is not to be moved again.
    const whole = this.#round === 0 && !isPartial && !isSameDisk(source.device, target.device);
    if (whole && (await zeroWhole(target.device, source.device.size, signal))) {
      counters.requests += 1;
      counters.zeroedBytes += zero.dirtyBytes;
      zero.resetAll();
      return true;
    }
    await writeZeroes({ ...this.#side(), target: target.device, zero });
    return false;
  }

  async #move(targetIsZero: boolean): Promise<CrewOutcome> {
    const { options, source, target, plan, arena, control, digest, signal } = this.#given;
    const devices = { source: source.device, target: target.device };
    const load = { threads: this.threads, bytes: plan.data.dirtyBytes };
    const transfer = chooseTransfer(options, { ...devices, targetIsZero }, load);
    if (this.threads === 0) {
      const moved =
        digest && ((offset: number, bytes: Uint8Array) => digestBlocks(offset, bytes, digest));
      const how = { ...transfer, ...this.#side(), moved };
      const outcome = await move({ ...how, ...devices, plan: plan.data, arena });
      return { ...outcome, warnings: [] };
    }
    // Loaded when it is needed: the pool takes longer to load than a small copy takes.
    const { moveInThreads } = await import('./crew.js');
    target.device.changedElsewhere();
    return await moveInThreads({
      threads: this.threads,
      source: again(source.device),
      target: again(target.device),
      transfer,
      control,
      shared: {
        arena: arena.shared,
        plan: plan.data.handle,
        leftOutMap: this.leftOutMap.handle,
        control: control.memory,
      },
      leftOut: this.leftOut,
      digest,
      signal,
    });
  }

  /** Makes durable what was written; returns warnings. */
  async #flush(): Promise<string[]> {
    const { options, target, signal } = this.#given;
    const { device } = target;
    if (options.flush === false) return [];
    this.phase = 'flush';
    await onSide('target', device.flush({ signal }));
    if (device.capabilities.flush) return [];
    return [`${device.name} cannot flush, so nobody knows when the copy will be durable there`];
  }

  /** What the calling thread needs to write, count, and give up. */
  #side() {
    const { rules, control, signal } = this.#given;
    const { leftOut, leftOutMap } = this;
    // The first row is this thread's.
    return { rules, control, counters: control.row(0), leftOut, leftOutMap, signal };
  }

  /** Waits until it makes sense to go on, or throws where it does not. */
  async #recover(error: unknown, flushed: boolean): Promise<void> {
    const { control, rules, signal, stopAsked } = this.#given;
    if (error === undefined || (stopAsked() && !signal.aborted)) this.#giveUp(stoppedError(error));
    if (signal.aborted || !(error instanceof SideError)) this.#giveUp(withoutSide(error));
    const { side, cause } = error as SideError;
    const rule = rules[side];
    const isGone = isLost(cause);
    const startsOver = (isGone || !flushed) && this.#restarts < rule.attempts;
    if (!startsOver && rule.policy !== 'stop') this.#giveUp(cause);
    control.start();
    const goesOn = startsOver
      ? await control.delay(backoffOf(rule, this.#restarts++))
      : await this.#resumed(cause);
    if (signal.aborted) this.#giveUp(abortedError(signal));
    if (!goesOn) this.#giveUp(stoppedError(cause));
    if (isGone) this.#lost = side;
  }

  async #resumed(cause: Error): Promise<boolean> {
    const { control, onStopped } = this.#given;
    control.pause();
    onStopped(cause);
    const goesOn = await control.mayGo();
    onStopped(undefined);
    return goesOn;
  }

  /** What was left out is still to be done, for whoever goes on with this plan. */
  #giveUp(error: unknown): never {
    this.#given.plan.data.merge(this.leftOutMap);
    throw error;
  }

  #confirm(): void {
    const { data, zero } = this.#unconfirmed;
    this.#unconfirmed = snapshotOf(this.#given.plan);
    data.free();
    zero.free();
  }

  #takeBack(): void {
    const { plan } = this.#given;
    plan.data.merge(this.#unconfirmed.data);
    plan.zero.merge(this.#unconfirmed.zero);
    this.leftOut = new LeftOut();
    this.leftOutMap.resetAll();
  }
}

function snapshotOf({ data, zero }: Plan): Unconfirmed {
  return { data: data.snapshot(), zero: zero.snapshot() };
}

/** Bytes that are done with, one way or another. */
export function doneBytes(control: Control): number {
  const { movedBytes, zeroedBytes, skippedBytes, leftOutBytes } = control.total();
  return movedBytes + zeroedBytes + skippedBytes + leftOutBytes;
}

function again({ name, description, size }: Device): DeviceAgain {
  if (description === undefined) throw new TypeError(`${name} cannot be opened twice`);
  return { description, size };
}
