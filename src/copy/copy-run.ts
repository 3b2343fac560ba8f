/** The steps of one copy, in order: open, plan, zero, move, flush. The control plane; it runs on the caller's thread. */
import { isDeepStrictEqual } from 'node:util';
import { Device, openDevice } from '../block/index.js';
import { throwIfAborted } from '../errors/index.js';
import { giveArenaBack, takeArena } from './arenas.js';
import { Control, type Counters } from './control.js';
import { type MoverOptions, move } from './mover.js';
import type { CopyOptions, CopyPhase, CopyProgress, CopyReport } from './options.js';
import { type Plan, plan, planGranularity } from './plan.js';
import { prepareTarget, type Target } from './target.js';
import { chooseThreads, chooseTransfer } from './transfer.js';
import type { DeviceAgain } from './worker.js';
import { dropKnownZero, writeZeroes, zeroWhole } from './zero-target.js';

const NOTHING: Counters = { movedBytes: 0, zeroedBytes: 0, skippedBytes: 0, requests: 0 };

export class CopyRun {
  readonly #options: CopyOptions;
  readonly #signal: AbortSignal;
  readonly #arena = takeArena();
  readonly #started = performance.now();
  #phase: CopyPhase = 'plan';
  #totalBytes = 0;
  #threads = 0;
  #counted: () => Counters = () => NOTHING;

  constructor(options: CopyOptions) {
    this.#options = options;
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
    const device = source instanceof Device ? source : await this.#openSource(source);
    try {
      const target = await prepareTarget(this.#options, device);
      try {
        return await this.#copy(device, target);
      } finally {
        await target.close();
      }
    } finally {
      if (device !== source) await device.close();
    }
  }

  #openSource(source: Exclude<CopyOptions['source'], Device>): Promise<Device> {
    const { context, sourceFormat } = this.#options;
    return openDevice(source, {
      contexts: context === undefined ? [] : [context],
      format: sourceFormat,
      signal: this.#signal,
    });
  }

  async #copy(source: Device, target: Target): Promise<CopyReport> {
    const made = await this.#plan(source, target);
    const planMs = this.#elapsed();
    const plannedBytes = made.data.dirtyBytes + made.zero.dirtyBytes;
    const warnings = await this.#execute(source, target, made);
    await this.#finish(target);
    made.data.free();
    made.zero.free();
    giveArenaBack(this.#arena);
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
      warnings: [...made.warnings, ...target.warnings, ...warnings],
    };
  }

  async #plan(source: Device, target: Target): Promise<Plan> {
    // A granule is written by one thread alone, so it must not be less than the target writes at once.
    const granularity = Math.max(
      planGranularity(source.size),
      source.limits.minimum,
      target.device.limits.minimum,
    );
    const { context, bitmap } = this.#options;
    const arena = this.#arena;
    try {
      return await plan({ source, context, bitmap, granularity, arena, signal: this.#signal });
    } catch (error) {
      await target.abandon();
      throw error;
    }
  }

  /** Zeroes and moves what the plan says; returns warnings. */
  async #execute(source: Device, target: Target, { data, zero }: Plan): Promise<string[]> {
    const bytes = data.dirtyBytes;
    this.#threads = chooseThreads(this.#options, { source, target: target.device, bytes });
    const arena = this.#arena;
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
    const { context, bitmap } = this.#options;
    const whole = context === undefined && bitmap === undefined && !isSame(source, target.device);
    if (whole && (await zeroWhole(target.device, source.size, this.#signal))) {
      side.counters.requests += 1;
      side.counters.zeroedBytes += zero.dirtyBytes;
      zero.resetAll();
      return true;
    }
    await writeZeroes(target.device, zero, side);
    return false;
  }

  async #finish(target: Target): Promise<void> {
    this.#phase = 'flush';
    throwIfAborted(this.#signal);
    if (this.#options.flush ?? true) await target.device.flush({ signal: this.#signal });
    await target.commit();
    this.#phase = 'done';
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
