import { type BlockDevice, filesBelow, openDevice } from '../../block/index.js';
import { type CopyJob, copy } from '../../copy/index.js';
import { abortedError, LacunaError } from '../../errors/index.js';
import type { Job, JobControl, JobCounts } from '../../job/index.js';
import { joinSignals } from '../../util/index.js';
import {
  holdPoint,
  machineJob,
  noteLeft,
  refuseImageOfPoint,
  type Target,
} from '../session/index.js';
import { bitmapOf, newGeneration } from '../state/index.js';
import { MirrorMachinery } from './machinery.js';
import { mirrorLost } from './mirror-lost.js';
import type { MirrorOptions, MirrorProgress, MirrorReport } from './options.js';
import { checkReplica, type MirrorPlan, planMirror } from './plan-mirror.js';
import {
  type ReplicaState,
  readReplicaState,
  storeReplicaState,
  targetFile,
} from './replica-state.js';
import { placesOf, type ReplicaPlaces, ReplicaTarget } from './replica-target.js';

const FLUSH_MS = 5000;

/** @param before what is done before anything else */
export function mirrorMachine(
  target: Target,
  options: MirrorOptions,
  before: () => Promise<readonly string[]>,
): Job<MirrorReport, MirrorProgress> {
  const { rate, signal } = options;
  const work = new MirrorRun(target, options, placesOf(options));
  return machineJob({ what: 'a mirror', rate, signal, before, work });
}

class MirrorRun {
  readonly #target: Target;
  readonly #options: MirrorOptions;
  readonly #places: ReplicaPlaces;
  readonly #failing = new AbortController();
  readonly #warnings: string[] = [];
  #plan!: MirrorPlan;
  #state!: Omit<ReplicaState, 'format' | 'version'>;
  #replica: ReplicaTarget | undefined;
  #machinery: MirrorMachinery | undefined;
  #copy: CopyJob | undefined;
  /** Of the copy, also before there is one. */
  #rate: number | undefined;
  #phase: MirrorProgress['phase'] = 'begin';
  /** Fires when the mirror is given up, by its caller or because it has failed. */
  #givenUp!: AbortSignal;

  constructor(target: Target, options: MirrorOptions, places: ReplicaPlaces) {
    this.#target = target;
    this.#options = options;
    this.#rate = options.rate;
    this.#places = places;
  }

  counted(): JobCounts<MirrorProgress> {
    const { totalBytes = 0, doneBytes = 0 } = this.#copy?.progress() ?? {};
    const { writes = 0, bytes = 0 } = this.#replica?.writers ?? {};
    return {
      phase: this.#phase,
      ...{ totalBytes, doneBytes, mirroredBytes: bytes, mirroredWrites: writes },
      durableWrites: this.#replica?.durable?.writes ?? 0,
    };
  }

  async run(control: JobControl): Promise<MirrorReport> {
    const before = await readReplicaState(this.#places.state);
    const signal = control.ending;
    this.#plan = await planMirror(this.#target, { ...this.#options, signal }, before, this.#places);
    const joined = joinSignals(control.signal, this.#failing.signal);
    this.#givenUp = joined.signal;
    const letGo = control.steer({
      pause: () => this.#pause(true),
      resume: () => this.#pause(false),
      setRate: (rate) => {
        this.#rate = rate;
        this.#copy?.setRate(rate);
      },
      stop: () => this.#copy?.stop(),
    });
    try {
      await this.#begin(control, before);
      const copiedBytes = await this.#catchUp(control);
      await this.#stayInStep(control);
      return await this.#end(copiedBytes);
    } catch (error) {
      const cause = this.#failing.signal.aborted ? this.#failing.signal.reason : error;
      await this.#undo(cause as Error);
      throw cause;
    } finally {
      joined.release();
      letGo();
    }
  }

  /** From the mirror's begin on, QEMU hands on everything that is written. */
  async #begin(control: JobControl, before: ReplicaState | undefined): Promise<void> {
    const { disk, bitmap, made } = this.#plan;
    const { file: path } = this.#places;
    if (path !== undefined) refuseImageOfPoint(path);
    const replica = await ReplicaTarget.open(this.#places, control.ending);
    this.#replica = replica;
    checkReplica(this.#plan, replica.device);
    if (path !== undefined) await this.#holdPoint(path, replica.device);
    // It is locked from here on: what another mirror has stored until now counts.
    const now = await readReplicaState(this.#places.state);
    if (JSON.stringify(before) !== JSON.stringify(now)) {
      const what = `${this.#places.state} was just changed by another mirror: begin again`;
      throw new LacunaError('ERR_MACHINE_BUSY', what, { retryable: true });
    }
    const { name, file, size } = disk;
    this.#state = {
      ...{ disk: name, image: file, size, phase: 'changing' },
      ...{ bitmap: bitmap?.name ?? null, marked: bitmap?.count, made },
      target: targetFile(this.#places.file),
    };
    await this.#store();
    const failed = (error: unknown) => this.#failing.abort(this.#explained(error as Error));
    this.#machinery = await MirrorMachinery.create(this.#target, this.#plan, failed);
    await replica.listen(this.#options.serve ?? this.#machinery.replicaSocket);
    const { flushMs = FLUSH_MS } = this.#options;
    replica.flushEvery(flushMs, () => this.#store(), failed);
    await this.#machinery.begin(replica.node, control.ending);
    if (control.isPaused) this.#pause(true);
  }

  /** A restore point that the replica lies over, stays as long as the replica does. */
  async #holdPoint(path: string, { details }: BlockDevice): Promise<void> {
    const { backingFile: filename, backingFormat: format = 'qcow2' } = details ?? {};
    if (filename === undefined) return;
    const { disk, bitmap, made } = this.#plan;
    const below = await filesBelow(path, { filename, format });
    // Those that mirrors have made count from no backup.
    const { name } = bitmap ?? {};
    const isMade = name !== undefined && made.includes(name);
    const copied = { disk: disk.name, disks: [disk.name] };
    holdPoint({ path, below }, { ...copied, ...(!isMade && { bitmap: name }) });
  }

  /** Copies what had changed before, and leaves out what QEMU has written meanwhile; returns bytes. */
  async #catchUp(control: JobControl): Promise<number> {
    const { writers } = this.#replica!;
    const { server, name, context } = this.#machinery!.source;
    const contexts = context === undefined ? [] : [context];
    this.#phase = 'copy';
    const signal = this.#givenUp;
    await using source = await openDevice(
      { driver: 'nbd', server, export: name, contexts },
      { signal: AbortSignal.any([control.ending, this.#failing.signal]) },
    );
    this.#copy = copy({
      source,
      target: writers.baseSide,
      ...(context !== undefined && { context }),
      ...{ threads: 0, flush: false, signal, rate: this.#rate },
    });
    if (control.isPaused) this.#copy.pause();
    if (control.ending.aborted) this.#copy.stop();
    const { movedBytes, warnings = [] } = await this.#copy;
    this.#warnings.push(...warnings);
    writers.endBase();
    return movedBytes;
  }

  async #stayInStep(control: JobControl): Promise<void> {
    const failing = this.#failing.signal;
    await Promise.race([
      this.#machinery!.watch.until('ready'),
      fired(failing),
      fired(control.ending),
    ]);
    failing.throwIfAborted();
    if (!this.#machinery!.watch.is('ready')) control.throwIfEnding();
    this.#phase = 'in step';
    await this.#replica!.flush();
    await this.#store();
    if (!this.#options.once) await Promise.race([fired(failing), fired(control.ending)]);
    failing.throwIfAborted();
    if (control.signal.aborted) control.throwIfEnding();
  }

  /**
   * The new bitmap records before the mirror ends, so nothing is lost between the two; and the old one goes only when it is
   * durable that the replica needs it no more.
   */
  async #end(copiedBytes: number): Promise<MirrorReport> {
    const [machinery, replica] = [this.#machinery!, this.#replica!];
    const { disk, bitmap: old } = this.#plan;
    const bitmap = bitmapOf(newGeneration(), disk.name);
    this.#state = { ...this.#state, made: [...this.#state.made, bitmap] };
    await this.#store();
    await machinery.addBitmap(bitmap);
    const equalAfter = new Date().toISOString();
    await this.#orGivenUp(machinery.endMirror());
    const equalBefore = new Date().toISOString();
    await replica.flush();
    const { bytes: mirroredBytes } = replica.writers;
    await machinery.takeDown().catch((error: Error) => this.#warnings.push(error.message));
    await replica.close();
    const target = targetFile(this.#places.file);
    this.#state = {
      ...this.#state,
      phase: 'equal',
      bitmap,
      marked: 0,
      durable: replica.durable,
      target,
    };
    await this.#store();
    await this.#removeMade(bitmap);
    const { state } = this.#places;
    const persistent = disk.canPersist;
    const warnings = this.#warnings;
    if (!persistent) warnings.push(endsWithQemu(disk.name));
    const oldName = old?.name ?? bitmap;
    const isMade = [...this.#plan.made, bitmap].includes(oldName);
    if (!isMade) warnings.push(stays(oldName));
    const report = { disk: disk.name, equalAfter, equalBefore, bitmap, persistent, copiedBytes };
    return { ...report, mirroredBytes, state, warnings };
  }

  /** Removes the bitmaps that mirrors have added, but for the one that is needed. */
  async #removeMade(needed: string): Promise<void> {
    try {
      for (const name of this.#state.made) {
        if (name !== needed) await this.#machinery!.removeBitmap(name);
      }
      this.#state = { ...this.#state, made: [needed] };
      await this.#store();
    } catch (error) {
      this.#warnings.push((error as Error).message);
    }
  }

  async #undo(error: Error): Promise<void> {
    await this.#machinery?.takeDown().catch((failure: Error) => noteLeft(error, failure));
    await this.#replica?.close().catch(() => {});
  }

  async #store(): Promise<void> {
    const durable = this.#replica?.durable;
    await storeReplicaState(this.#places.state, { ...this.#state, ...(durable && { durable }) });
  }

  #pause(isPaused: boolean): void {
    if (isPaused) this.#copy?.pause();
    else this.#copy?.resume();
    void this.#machinery?.pause(isPaused);
  }

  /** A mirror cannot end while somebody has paused its job, or the replica does not answer; its signal ends the wait. */
  async #orGivenUp(work: Promise<void>): Promise<void> {
    await Promise.race([work, fired(this.#givenUp)]);
    this.#failing.signal.throwIfAborted();
    if (this.#givenUp.aborted) throw abortedError(this.#givenUp);
  }

  /** QEMU says no more than that a write has failed; the server knows why. */
  #explained(error: Error): Error {
    const failure = this.#replica?.writers.failure;
    if (!(failure instanceof Error)) return error;
    return mirrorLost(this.#target.monitor.name, failure.message, failure);
  }
}

/** Resolves when a signal has fired. */
function fired(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

function endsWithQemu(disk: string): string {
  return `the image of ${disk} cannot store bitmaps: when QEMU has ended, the next mirror must copy all of the disk (full)`;
}

function stays(bitmap: string): string {
  return `the bitmap ${JSON.stringify(bitmap)} stays as it is: no mirror has made it, and this replica does not need it any more`;
}
