/** The steps of one copy, in order: open, plan, zero, move, flush. The control plane; it runs on the caller's thread. */
import { isDeepStrictEqual } from 'node:util';
import { Device, openDevice } from '../block/index.js';
import { throwIfAborted } from '../errors/index.js';
import type { Arena } from '../wasm/index.js';
import { giveArenaBack, takeArena } from './arenas.js';
import { closeAfter } from './close-after.js';
import { Control, type Counters } from './control.js';
import { planGranularity } from './granularity.js';
import { type MoverOptions, move } from './mover.js';
import type { CopyOptions, CopyPhase, CopyProgress, CopyReport } from './options.js';
import { type Plan, plan } from './plan.js';
import { type CheckedScope, checkScope, contextsOf } from './plan-walk.js';
import { prepareTarget, type Target } from './target.js';
import { chooseThreads, chooseTransfer } from './transfer.js';
import type { DeviceAgain } from './worker.js';
import { dropKnownZero, writeZeroes, zeroWhole } from './zero-target.js';

const NOTHING: Counters = { movedBytes: 0, zeroedBytes: 0, skippedBytes: 0, requests: 0 };

export class CopyRun {
  readonly #options: CopyOptions;
  readonly #signal: AbortSignal;
  /** Bitmaps as they were when the copy was asked for, whatever happens to the caller's meanwhile. */
  readonly #scope: CheckedScope;
  readonly #started = performance.now();
  #phase: CopyPhase = 'plan';
  #totalBytes = 0;
  #threads = 0;
  #counted: () => Counters = () => NOTHING;

  constructor(options: CopyOptions) {
    this.#options = options;
    const scope = checkScope(options);
    this.#scope = { ...scope, bitmaps: scope.bitmaps.map((bitmap) => bitmap.snapshot()) };
    this.#signal = options.signal ?? new AbortController().signal;
  }

  progress(): CopyProgress {
    const { movedBytes, zeroedBytes, skippedBytes } = this.#counted();
    return {
      phase: this.#phase,
      totalBytes: this.#totalBytes,
      doneBytes: movedBytes + zeroedBytes + skippedBytes,
      movedBytes,
      zeroedBytes,
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
    const target = await prepareTarget(this.#options, source);
    return await closeAfter(
      () => this.#copy(source, target),
      () => target.close(),
    );
  }

  #openSource(source: Exclude<CopyOptions['source'], Device>): Promise<Device> {
    const { sourceFormat } = this.#options;
    return openDevice(source, {
      contexts: contextsOf(this.#scope),
      format: sourceFormat,
      signal: this.#signal,
    });
  }

  async #copy(source: Device, target: Target): Promise<CopyReport> {
    const arena = takeArena();
    const made = await this.#plan(source, target, arena);
    const planMs = this.#elapsed();
    const plannedBytes = made.data.dirtyBytes + (this.#incremental ? made.zero.dirtyBytes : 0);
    const warnings = [...made.warnings, ...target.warnings];
    try {
      warnings.push(...(await this.#execute(source, target, made, arena)));
      warnings.push(...(await this.#finish(target)));
    } catch (error) {
      // The arena is dropped as it is: a worker that had to be ended may hold one of its locks.
      await target.leave();
      throw error;
    }
    made.data.free();
    made.zero.free();
    giveArenaBack(arena);
    const { movedBytes, zeroedBytes, requests } = this.#counted();
    return {
      size: source.size,
      plannedBytes,
      movedBytes,
      zeroedBytes,
      skippedBytes: source.size - movedBytes - zeroedBytes,
      requests,
      threads: this.#threads,
      planMs,
      durationMs: this.#elapsed(),
      warnings,
    };
  }

  get #incremental(): boolean {
    return this.#scope.mode !== 'full';
  }

  async #plan(source: Device, target: Target, arena: Arena): Promise<Plan> {
    // A granule is written by one thread alone, so it must not be less than the target writes at once.
    const granularity = Math.max(
      planGranularity(source.size),
      source.limits.minimum,
      target.device.limits.minimum,
    );
    const { mode, contexts: context, bitmaps: bitmap } = this.#scope;
    const scope = { mode, context, bitmap };
    try {
      return await plan({ source, ...scope, granularity, arena, signal: this.#signal });
    } catch (error) {
      await target.abandon();
      throw error;
    } finally {
      for (const frozen of bitmap) frozen.free();
    }
  }

  /** Zeroes and moves what the plan says; returns warnings. */
  async #execute(
    source: Device,
    target: Target,
    { data, zero }: Plan,
    arena: Arena,
  ): Promise<string[]> {
    const bytes = data.dirtyBytes;
    this.#threads = chooseThreads(this.#options, { source, target: target.device, bytes });
    // The last row is the calling thread's.
    const control = Control.create(this.#threads + 1);
    this.#counted = () => control.total();
    const side = { control, counters: control.row(this.#threads), signal: this.#signal };
    const targetIsZero = await this.#zero(source, target, zero, data, side);

    this.#phase = 'move';
    const devices = { source, target: target.device, targetIsZero };
    const load = { threads: this.#threads, bytes };
    const transfer = chooseTransfer(this.#options, devices, load);
    if (this.#threads === 0) {
      await move({ ...transfer, ...side, source, target: target.device, plan: data, arena });
      return [];
    }
    // Loaded when it is needed: the pool takes longer to load than a small copy takes.
    const { moveInThreads } = await import('./crew.js');
    target.device.changedElsewhere();
    return await moveInThreads({
      threads: this.#threads,
      source: again(source),
      target: again(target.device),
      transfer,
      control,
      shared: { arena: arena.shared, plan: data.handle, control: control.memory },
      signal: this.#signal,
    });
  }

  /** Makes the target zero where it must be; returns whether all of it is known to read as zero then. */
  async #zero(
    source: Device,
    target: Target,
    zero: Plan['zero'],
    data: Plan['data'],
    side: Pick<MoverOptions, 'control' | 'counters' | 'signal'>,
  ): Promise<boolean> {
    if (target.isZero) zero.resetAll();
    else await dropKnownZero(target.device, zero, this.#signal);
    this.#totalBytes = data.dirtyBytes + zero.dirtyBytes;
    if (zero.count === 0) return target.isZero;

    this.#phase = 'zero';
    const whole = !this.#incremental && !isSame(source, target.device);
    if (whole && (await zeroWhole(target.device, source.size, this.#signal))) {
      side.counters.requests += 1;
      side.counters.zeroedBytes += zero.dirtyBytes;
      zero.resetAll();
      return true;
    }
    await writeZeroes(target.device, zero, side);
    return false;
  }

  /** Makes the target durable and gives it its name; returns warnings. */
  async #finish({ device, commit }: Target): Promise<string[]> {
    this.#phase = 'flush';
    throwIfAborted(this.#signal);
    const flush = this.#options.flush ?? true;
    if (flush) await device.flush({ signal: this.#signal });
    await commit();
    this.#phase = 'done';
    if (!flush || device.capabilities.flush) return [];
    return [`${device.name} cannot flush, so nobody knows when the copy will be durable there`];
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

function again({ name, description, size }: Device): DeviceAgain {
  if (description === undefined) throw new TypeError(`${name} cannot be opened twice`);
  return { description, size };
}
