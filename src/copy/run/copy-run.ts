/** The steps of one copy, in order: open, plan, carry out, report. The control plane; it runs on the caller's thread. */
import type { Bitmap } from '../../bitmap/index.js';
import type { BlockDevice } from '../../block/index.js';
import { LacunaError, throwIfAborted } from '../../errors/index.js';
import { type JobControl, type JobCounts, RateSeries, SAMPLE_MS } from '../../job/index.js';
import { closeAfter } from '../../util/index.js';
import type { Arena } from '../../wasm/index.js';
import { Control } from '../control/index.js';
import {
  describeTarget,
  filesIn,
  filesOfNewImage,
  isWholeAfter,
  openSource,
  prepareTarget,
  refuseSideFiles,
  type Source,
  type Target,
} from '../ends/index.js';
import { type BlockDigests, DIGEST_BLOCK, DigestTree } from '../move/index.js';
import {
  type CheckedScope,
  type CopyOptions,
  type CopyPhase,
  type CopyProgress,
  type CopyReport,
  checkScope,
  isHashed,
  type PlanTotals,
  reconnectSeconds,
  rulesOf,
} from '../options/index.js';
import { type Plan, planDevice, planGranularity } from '../plan/index.js';
import type { Resumption } from '../resume/index.js';
import { freeArena, takeArena } from '../threads/index.js';
import { doneBytes, Rounds, type WorkToDo } from './rounds.js';
import { THREADS } from './transfer.js';
import { Verification } from './verification.js';

/** Bytes; what no request of a mover is shorter than, and a multiple of. */
const SHORTEST_REQUEST = 4096;

export class CopyRun {
  readonly #options: CopyOptions;
  readonly #job: JobControl;
  /** Bitmaps as they were when the copy was asked for, whatever happens to the caller's meanwhile. */
  readonly #scope: CheckedScope;
  readonly #started = performance.now();
  /** A row of counters for each thread there may be, and for this one. */
  readonly #control = Control.create(THREADS.most + 1);
  readonly #rates = new RateSeries();
  #resumption: Resumption | undefined;
  #plannedBytes = 0;
  #resumedBytes = 0;
  #phase: CopyPhase = 'plan';
  #rounds: Rounds | undefined;
  #verification: Verification | undefined;
  #unfinished: string | undefined;
  #partlyWritten: string | undefined;
  #partOfImage: string | undefined;
  /** What the caller's `onBlock` has thrown. */
  #refusal: { readonly error: unknown } | undefined;

  constructor(options: CopyOptions, job: JobControl) {
    this.#options = options;
    this.#job = job;
    const scope = checkScope(options);
    this.#scope = { ...scope, bitmaps: scope.bitmaps.map((bitmap) => bitmap.snapshot()) };
  }

  /** What a later run can go on from; see CopyJob. */
  get resumable(): { file: string; remainingBytes: number } | undefined {
    return this.#resumption?.resumable;
  }

  /** What was left of a target that cannot be gone on with; see CopyJob. */
  get unfinished(): string | undefined {
    return this.#unfinished;
  }

  /** A target that holds a part of the copy, and of what it held before; see CopyJob. */
  get partlyWritten(): string | undefined {
    return this.#partlyWritten;
  }

  /** A device that holds a part of a new image; see CopyJob. */
  get partOfImage(): string | undefined {
    return this.#partOfImage;
  }

  /** How far the copy is. */
  counted(): JobCounts<CopyProgress> {
    const { movedBytes, zeroedBytes, retries } = this.#control.total();
    const phase = this.#phase === 'plan' ? (this.#rounds?.phase ?? 'plan') : this.#phase;
    return { phase, ...this.#share(), movedBytes, zeroedBytes, retries };
  }

  /** What of the whole is done, in this phase. */
  #share(): Pick<CopyProgress, 'totalBytes' | 'doneBytes' | 'resumedBytes'> {
    if (this.#phase === 'verify' && this.#verification !== undefined) {
      // What earlier runs have written is read back as well.
      const { totalBytes, doneBytes } = this.#verification;
      return { totalBytes, doneBytes, resumedBytes: 0 };
    }
    const { totalBytes = 0 } = this.#rounds ?? {};
    // While nobody knows how much there is to do, nothing can be a part of it.
    const resumedBytes = totalBytes > 0 ? this.#resumedBytes : 0;
    return { totalBytes, doneBytes: resumedBytes + doneBytes(this.#control), resumedBytes };
  }

  async start(): Promise<CopyReport> {
    const sample = () => this.#rates.sample(doneBytes(this.#control), this.#elapsed());
    const sampler = setInterval(sample, SAMPLE_MS);
    sampler.unref();
    try {
      return await this.#open();
    } catch (error) {
      throw this.#refusal === undefined ? error : this.#refusal.error;
    } finally {
      clearInterval(sampler);
      for (const frozen of this.#scope.bitmaps) frozen.free();
    }
  }

  async #open(): Promise<CopyReport> {
    this.#refuseSideFiles();
    const options = this.#options;
    const seconds = reconnectSeconds(rulesOf(options).source, options);
    const source = await openSource(options, this.#scope, seconds, this.#job.ending);
    return await closeAfter(
      () => this.#copyFrom(source),
      () => source.close(),
    );
  }

  #refuseSideFiles(): void {
    const { source, sourceFormat, target, targetFormat } = this.#options;
    refuseSideFiles(
      [
        [source, sourceFormat],
        [target, targetFormat],
      ],
      () => filesOfNewImage(target, this.#options),
    );
  }

  async #copyFrom(source: Source): Promise<CopyReport> {
    const arena = takeArena();
    const { resume } = this.#options;
    if (resume === undefined) return await this.#copyTo(source, arena);
    const target = describeTarget(this.#options, source.device);
    const files = [
      ...filesIn(source.device),
      ...(target === undefined ? [] : filesIn(target)),
      ...(target === undefined ? [] : filesOfNewImage(target, this.#options)),
    ];
    const origin = { source: source.device, target, files, scope: this.#scope, arena };
    // Loaded when it is needed, as most copies leave nothing to go on from.
    const { Resumption } = await import('../resume/resumption.js');
    const resumption = await Resumption.open(resume, origin);
    this.#resumption = resumption;
    return await closeAfter(
      () => this.#copyTo(source, arena),
      () => resumption.close(),
    );
  }

  async #copyTo(source: Source, arena: Arena): Promise<CopyReport> {
    const { ending } = this.#job;
    const target = await prepareTarget(this.#options, source.device, ending, this.#resumption);
    return await closeAfter(
      () => this.#copy(source, target, arena),
      () => target.close(),
    );
  }

  async #copy(source: Source, target: Target, arena: Arena): Promise<CopyReport> {
    const made =
      this.#goOn(source.device, target) ?? (await this.#plan(source.device, target, arena));
    const planMs = this.#elapsed();
    const warnings = [...made.warnings, ...target.warnings];
    const { asPlanned, tree, rounds } = await this.#prepare(made, source, target, arena);
    this.#rounds = rounds;
    try {
      warnings.push(...(await this.#carryOut(rounds)));
      this.#throwIfEnded();
      if (this.#options.verify)
        warnings.push(...(await this.#verify(source, target, rounds, arena)));
      warnings.push(...(await target.finish()));
      await this.#resumption?.complete();
      this.#phase = 'done';
    } catch (error) {
      // The arena is dropped as it is: a worker that had to be ended may hold one of its locks.
      await this.#keepOrRemove(target, error);
      throw error;
    }
    const leftOutBytes = rounds.leftOutMap.dirtyBytes;
    rounds.free();
    for (const bitmap of [asPlanned, made.data, made.zero]) bitmap.free();
    freeArena(arena);
    const { movedBytes, zeroedBytes, requests, retries } = this.#control.total();
    this.#rates.finish(doneBytes(this.#control), this.#elapsed());
    const { size } = source.device;
    const done = this.#resumedBytes + movedBytes + zeroedBytes + leftOutBytes;
    // What had to be moved twice is in the sums twice.
    const skippedBytes = Math.max(0, size - done);
    const digest = tree?.root();
    return {
      size,
      plannedBytes: this.#plannedBytes,
      movedBytes,
      zeroedBytes,
      skippedBytes,
      ...(made.totals && { skipped: reasons(skippedBytes, made.totals) }),
      resumedBytes: this.#resumedBytes,
      leftOutBytes,
      ...(made.totals && { totals: made.totals }),
      requests,
      retries,
      threads: rounds.threads,
      planMs,
      durationMs: this.#elapsed(),
      rate: this.#rates.rates(),
      peakMemoryBytes: process.resourceUsage().maxRSS * 1024,
      ...(this.#verification && { verifiedBytes: this.#verification.totalBytes }),
      ...(digest !== undefined && { digest }),
      ...(target.bitmaps && { bitmaps: [...target.bitmaps] }),
      errors: [...rounds.leftOut.ranges],
      moreErrors: rounds.leftOut.more,
      missing: source.device.missing.slice(0, MOST_MISSING),
      // To verify is to plan again, and may meet the same.
      warnings: [...new Set([...warnings, ...(this.#resumption?.warnings ?? [])])],
    };
  }

  async #carryOut(rounds: Rounds): Promise<string[]> {
    const letGo = this.#job.steer(this.#control);
    try {
      return await rounds.run();
    } finally {
      letGo();
    }
  }

  /** All that takes memory beside the plan, before anything is written. */
  async #prepare(made: WorkToDo, source: Source, target: Target, arena: Arena) {
    try {
      const asPlanned = made.data.snapshot();
      const { digest: wanted } = this.#options;
      const tree = wanted ? new DigestTree(source.device.size, asPlanned) : undefined;
      const rounds = new Rounds({
        options: this.#options,
        ends: { source, target },
        work: {
          plan: made,
          plannedBytes: this.#plannedBytes,
          resumedBytes: this.#resumedBytes,
          resumption: this.#resumption,
          digest: this.#takerOf(tree && onlyOnce(tree, asPlanned)),
        },
        arena,
        control: this.#control,
        job: this.#job,
      });
      return { asPlanned, tree, rounds };
    } catch (error) {
      await this.#keepOrRemove(target, error);
      throw error;
    }
  }

  #throwIfEnded(): void {
    throwIfAborted(this.#job.signal);
    if (this.#refusal !== undefined) throw this.#refusal.error;
  }

  /** Who is told of the digests of blocks: the tree, and the caller. */
  #takerOf(tree: BlockDigests | undefined): BlockDigests | undefined {
    const { onBlock } = this.#options;
    if (onBlock === undefined) return tree;
    return {
      add: (block, digest) => {
        tree?.add(block, digest);
        if (this.#refusal !== undefined) return;
        try {
          onBlock(block, digest);
        } catch (error) {
          // Blocks come from worker threads as well, where nobody could catch it.
          this.#refusal = { error };
          this.#job.stop();
        }
      },
    };
  }

  /** What an earlier run has left to be done. */
  #goOn({ warnings }: BlockDevice, target: Target): WorkToDo | undefined {
    const saved = this.#resumption?.saved;
    if (saved === undefined) return undefined;
    this.#resumption?.checkTarget(target);
    const { state, data, zero } = saved;
    if (target.complete) {
      data.resetAll();
      zero.resetAll();
    }
    this.#plannedBytes = state.plannedBytes;
    this.#resumedBytes = state.totalBytes - data.dirtyBytes - zero.dirtyBytes;
    return { data, zero, warnings: [...warnings] };
  }

  /** After a failure: what was written stays for a later run, or as a rest that nobody takes for whole. */
  async #keepOrRemove(target: Target, error: unknown): Promise<void> {
    // What is wrong although it was written cannot be gone on from.
    if (isDifference(error)) await this.#resumption?.complete();
    else if (this.resumable !== undefined) {
      await this.#resumption?.keep(this.#control.unflushed);
      return;
    }
    this.#partOfImage = target.partOfImage;
    if (target.partOfImage !== undefined) return;
    const { movedBytes, zeroedBytes } = this.#control.total();
    if (isWholeAfter(error)) await target.keepUnfinished();
    else if (movedBytes + zeroedBytes === 0) await target.removeUnfinished();
    else if (target.made === undefined) this.#partlyWritten = target.device.name;
    else this.#unfinished = await target.keepUnfinished();
  }

  get #incremental(): boolean {
    return this.#scope.mode !== 'full';
  }

  async #plan(source: BlockDevice, target: Target, arena: Arena): Promise<Plan> {
    // A granule is written by one thread alone, so it must not be less than the target writes at once. What
    // remains of a copy is known by pieces, which may be as short as a request.
    const finest = planGranularity(source.size);
    const granularity = Math.max(
      this.#resumption === undefined ? finest : Math.min(finest, SHORTEST_REQUEST),
      source.limits.minimum,
      target.device.limits.minimum,
      // So every piece that moves is made of whole blocks.
      isHashed(this.#options) ? DIGEST_BLOCK : 1,
    );
    const { detectZeroes } = this.#options;
    const seesZeroes = detectZeroes !== 'off' && !source.capabilities.exactStatus;
    const how = { granularity, arena, seesZeroes, signal: this.#job.ending };
    try {
      const made = await planDevice(source, this.#scope, how);
      const { data, zero } = made;
      await target.layOut?.({ data, zero });
      this.#plannedBytes = data.dirtyBytes + (this.#incremental ? zero.dirtyBytes : 0);
      return made;
    } catch (error) {
      this.#partOfImage = target.partOfImage;
      await target.removeUnfinished();
      throw error;
    }
  }

  async #verify(
    source: Source,
    target: Target,
    { leftOutMap: leftOut }: Rounds,
    arena: Arena,
  ): Promise<string[]> {
    this.#phase = 'verify';
    this.#verification = new Verification({
      transfer: this.#options,
      source: source.device,
      target: target.device,
      scope: this.#scope,
      leftOut,
      arena,
      job: this.#job,
    });
    return await this.#verification.run();
  }

  #elapsed(): number {
    return performance.now() - this.#started;
  }
}

/** What moves is rounded outward to granules, so that a little of what is clean may have moved. */
function reasons(skippedBytes: number, totals: PlanTotals) {
  const cleanBytes = Math.min(skippedBytes, totals.cleanBytes);
  return { cleanBytes, zeroBytes: skippedBytes - cleanBytes };
}

/** As many ranges as of what was left out. */
export const MOST_MISSING = 1000;

function isDifference(error: unknown): boolean {
  return error instanceof LacunaError && error.code === 'ERR_COPY_VERIFY';
}

/** Lets each block through once: after a failure some may be moved a second time, with the same content. */
function onlyOnce(tree: DigestTree, data: Bitmap): BlockDigests {
  const missing = data.snapshot();
  return {
    add: (block, digest) => {
      const offset = block * DIGEST_BLOCK;
      if (!missing.get(offset)) return;
      missing.reset(offset, Math.min(DIGEST_BLOCK, missing.size - offset));
      tree.add(block, digest);
    },
  };
}
