/** The steps of one copy, in order: open, plan, zero, move, flush. The control plane; it runs on the caller's thread. */
import { isDeepStrictEqual } from 'node:util';
import type { Bitmap } from '../bitmap/index.js';
import { Device, openDevice } from '../block/index.js';
import { throwIfAborted } from '../errors/index.js';
import type { Arena } from '../wasm/index.js';
import { giveArenaBack, takeArena } from './arenas.js';
import { closeAfter } from './close-after.js';
import { Control } from './control.js';
import { again } from './device-again.js';
import { DIGEST_BLOCK, DigestTree, digestBlocks } from './digest-tree.js';
import { type MoverOptions, move } from './mover.js';
import type { CopyOptions, CopyPhase, CopyProgress, CopyReport } from './options.js';
import { type Plan, plan, planGranularity } from './plan.js';
import { Resumption } from './resumption.js';
import { prepareTarget, type Target } from './target.js';
import { chooseThreads, chooseTransfer } from './transfer.js';
import { dropKnownZero, writeZeroes, zeroWhole } from './zero-target.js';

/** Bytes; what no request of a mover is shorter than, and a multiple of. */
const SHORTEST_REQUEST = 4096;

type WorkToDo = Pick<Plan, 'data' | 'zero' | 'warnings'>;

export class CopyRun {
  readonly #options: CopyOptions;
  readonly #signal: AbortSignal;
  /** As the caller's was when the copy was asked for, whatever happens to that meanwhile. */
  readonly #bitmap: Bitmap | undefined;
  readonly #started = performance.now();
  /** Fires when the copy must not go on although nobody has cancelled it; its reason says why. */
  readonly #failure = new AbortController();
  #resumption: Resumption | undefined;
  #plannedBytes = 0;
  #resumedBytes = 0;
  #control = Control.create(1);
  #phase: CopyPhase = 'plan';
  #totalBytes = 0;
  #threads = 0;
  #digest: DigestTree | undefined;

  constructor(options: CopyOptions) {
    this.#options = options;
    this.#bitmap = options.bitmap?.snapshot();
    const failure = this.#failure.signal;
    this.#signal = options.signal ? AbortSignal.any([options.signal, failure]) : failure;
  }

  /** What a later run can go on from; see CopyJob. */
  get resumable(): { file: string; remainingBytes: number } | undefined {
    return this.#resumption?.resumable;
  }

  progress(): CopyProgress {
    const { movedBytes, zeroedBytes, skippedBytes } = this.#control.total();
    return {
      phase: this.#phase,
      totalBytes: this.#totalBytes,
      doneBytes: this.#resumedBytes + movedBytes + zeroedBytes + skippedBytes,
      movedBytes,
      zeroedBytes,
      resumedBytes: this.#resumedBytes,
      elapsedMs: this.#elapsed(),
    };
  }

  async start(): Promise<CopyReport> {
    const { source } = this.#options;
    if (source instanceof Device) return await this.#copyFrom(source);
    const device = await this.#openSource(source);
    return await closeAfter(
      () => this.#copyFrom(device),
      () => device.close(),
    );
  }

  async #copyFrom(source: Device): Promise<CopyReport> {
    const arena = takeArena();
    const { resume, context } = this.#options;
    if (resume === undefined) return await this.#copyTo(source, arena);
    const origin = { source, context, bitmap: this.#bitmap, arena };
    const resumption = await Resumption.open(resume, origin);
    this.#resumption = resumption;
    return await closeAfter(
      () => this.#copyTo(source, arena),
      () => resumption.close(),
    );
  }

  async #copyTo(source: Device, arena: Arena): Promise<CopyReport> {
    const target = await prepareTarget(this.#options, source, this.#resumption?.saved?.state);
    return await closeAfter(
      () => this.#copy(source, target, arena),
      () => target.close(),
    );
  }

  #openSource(source: Exclude<CopyOptions['source'], Device>): Promise<Device> {
    const { context, sourceFormat } = this.#options;
    return openDevice(source, {
      contexts: context === undefined ? [] : [context],
      format: sourceFormat,
      signal: this.#signal,
    });
  }

  async #copy(source: Device, target: Target, arena: Arena): Promise<CopyReport> {
    const made = this.#goOn(target) ?? (await this.#plan(source, target, arena));
    const planMs = this.#elapsed();
    const warnings = [...made.warnings, ...target.warnings];
    const asPlanned = made.data.snapshot();
    if (this.#options.digest) this.#digest = new DigestTree(source.size, asPlanned);
    try {
      warnings.push(...(await this.#execute(source, target, made, arena)));
      warnings.push(...(await this.#finish(target)));
    } catch (error) {
      // The arena is dropped as it is: a worker that had to be ended may hold one of its locks.
      await this.#leave(target);
      throw this.#failure.signal.reason ?? error;
    }
    for (const bitmap of [asPlanned, made.data, made.zero]) bitmap.free();
    giveArenaBack(arena);
    const { movedBytes, zeroedBytes, requests } = this.#control.total();
    const digest = this.#digest?.root();
    return {
      size: source.size,
      plannedBytes: this.#plannedBytes,
      movedBytes,
      zeroedBytes,
      skippedBytes: source.size - this.#resumedBytes - movedBytes - zeroedBytes,
      resumedBytes: this.#resumedBytes,
      requests,
      threads: this.#threads,
      planMs,
      durationMs: this.#elapsed(),
      ...(digest !== undefined && { digest }),
      warnings,
    };
  }

  /** What an earlier run has left to be done. */
  #goOn(target: Target): WorkToDo | undefined {
    const saved = this.#resumption?.saved;
    if (saved === undefined) return undefined;
    this.#resumption?.checkTarget(target);
    const { state, data, zero } = saved;
    this.#bitmap?.free();
    if (target.complete) {
      data.resetAll();
      zero.resetAll();
    }
    this.#plannedBytes = state.plannedBytes;
    this.#resumedBytes = state.totalBytes - data.dirtyBytes - zero.dirtyBytes;
    return { data, zero, warnings: [] };
  }

  /** After a failure: what was written stays for a later run, or as a rest that nobody takes for whole. */
  async #leave(target: Target): Promise<void> {
    if (this.resumable === undefined) await target.leave();
    else await this.#resumption?.leave(this.#control.unflushed);
  }

  get #incremental(): boolean {
    return this.#options.context !== undefined || this.#bitmap !== undefined;
  }

  async #plan(source: Device, target: Target, arena: Arena): Promise<WorkToDo> {
    // A granule is written by one thread alone, so it must not be less than the target writes at once. What
    // remains of a copy is known by pieces, which may be as short as a request.
    const finest = planGranularity(source.size);
    const granularity = Math.max(
      this.#resumption === undefined ? finest : Math.min(finest, SHORTEST_REQUEST),
      source.limits.minimum,
      target.device.limits.minimum,
      // So every piece that moves is made of whole blocks.
      this.#options.digest ? DIGEST_BLOCK : 1,
    );
    const { context } = this.#options;
    const bitmap = this.#bitmap;
    try {
      const made = await plan({
        source,
        context,
        bitmap,
        granularity,
        arena,
        signal: this.#signal,
      });
      const { data, zero } = made;
      this.#plannedBytes = data.dirtyBytes + (this.#incremental ? zero.dirtyBytes : 0);
      return made;
    } catch (error) {
      await target.abandon();
      throw error;
    } finally {
      bitmap?.free();
    }
  }

  /** Zeroes and moves what the plan says; returns warnings. */
  async #execute(source: Device, target: Target, plan: WorkToDo, arena: Arena): Promise<string[]> {
    const { data } = plan;
    const bytes = data.dirtyBytes;
    this.#threads = chooseThreads(this.#options, { source, target: target.device, bytes });
    // The last row is the calling thread's.
    const control = Control.create(this.#threads + 1);
    this.#control = control;
    const side = { control, counters: control.row(this.#threads), signal: this.#signal };
    const targetIsZero = await this.#zero(source, target, plan, side);

    this.#phase = 'move';
    const devices = { source, target: target.device, targetIsZero };
    const load = { threads: this.#threads, bytes };
    const transfer = chooseTransfer(this.#options, devices, load);
    const digest = this.#digest;
    if (this.#threads === 0) {
      const moved =
        digest && ((offset: number, bytes: Uint8Array) => digestBlocks(offset, bytes, digest));
      const remains = this.#resumption?.remains?.data;
      const work = { plan: data, remains, arena, moved, flush: false };
      await move({ ...transfer, ...side, source, target: target.device, ...work });
      return [];
    }
    // Loaded when it is needed: the pool takes longer to load than a small copy takes.
    const { workInThreads } = await import('./crew.js');
    target.device.changedElsewhere();
    const remains = this.#resumption?.remains?.data.handle;
    return await workInThreads({
      threads: this.#threads,
      source: again(source),
      target: again(target.device),
      transfer,
      control,
      shared: { arena: arena.shared, plan: data.handle, remains, control: control.memory },
      lost: () => this.#resumption?.lose(),
      digest,
      signal: this.#signal,
    });
  }

  /** Makes the target zero where it must be; returns whether all of it is known to read as zero then. */
  async #zero(
    source: Device,
    target: Target,
    plan: WorkToDo,
    side: Pick<MoverOptions, 'control' | 'counters' | 'signal'>,
  ): Promise<boolean> {
    const { data, zero } = plan;
    const isZero = this.#resumption?.saved?.state.targetIsZero ?? target.isZero;
    if (isZero) zero.resetAll();
    else await dropKnownZero(target.device, zero, this.#signal);
    this.#totalBytes = this.#resumedBytes + data.dirtyBytes + zero.dirtyBytes;
    await this.#resumption?.begin({
      target,
      plan,
      plannedBytes: this.#plannedBytes,
      totalBytes: this.#totalBytes,
      threads: this.#threads,
      failed: (error) => this.#failure.abort(error),
    });
    if (zero.count === 0) return isZero;

    this.#phase = 'zero';
    // Never again over what an earlier run has moved.
    const whole = !this.#incremental && this.#resumedBytes === 0 && !isSame(source, target.device);
    if (whole && (await zeroWhole(target.device, source.size, this.#signal))) {
      side.counters.requests += 1;
      side.counters.zeroedBytes += zero.dirtyBytes;
      zero.resetAll();
      this.#resumption?.targetIsZero();
      return true;
    }
    await writeZeroes(target.device, zero, { ...side, remains: this.#resumption?.remains?.zero });
    return false;
  }

  /** Makes the target durable and gives it its name; returns warnings. */
  async #finish({ device, commit }: Target): Promise<string[]> {
    this.#phase = 'flush';
    throwIfAborted(this.#signal);
    const flush = this.#options.flush ?? true;
    await this.#resumption?.end();
    if (flush) await this.#control.flush(device, this.#signal);
    await commit();
    await this.#resumption?.complete();
    this.#phase = 'done';
    const warnings = this.#resumption?.warnings ?? [];
    if (!flush || device.capabilities.flush) return warnings;
    return [
      ...warnings,
      `${device.name} cannot flush, so nobody knows when the copy will be durable there`,
    ];
  }

  #elapsed(): number {
    return performance.now() - this.#started;
  }
}

/** Zeroing the whole target at once must not wipe the source: a disk may be copied onto itself. */
function isSame(source: Device, target: Device): boolean {
  if (source === target) return true;
  const [a, b] = [source.description, target.description];
  if (a === undefined || b === undefined) return false;
  const place = ({ 'read-only': _readOnly, ...rest }: typeof a) => ({
    ...rest,
    contexts: undefined,
  });
  return isDeepStrictEqual(place(a), place(b));
}
