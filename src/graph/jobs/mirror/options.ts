import type { CopyMode } from '../../../block/index.js';
import type { DetectZeroes } from '../../../copy/index.js';
import type { JobProgress } from '../../../job/index.js';
import { optionCheck } from '../../../util/index.js';
import type { NodeDescription } from '../../core/index.js';
import { GRAPH_JOB_OPTIONS, type GraphJobOptions } from '../group/index.js';
import type { BitmapMode, JobErrorPolicy, SyncMode } from '../rounds/index.js';

/** A mirror job. */
export interface MirrorOptions extends GraphJobOptions {
  /** The name of the node that is mirrored. All who use it go through the job's filter meanwhile. */
  readonly node: string;
  /** A node that nobody else uses, or the description of one: at least as large, and as large where it is to come into use. */
  readonly target: string | NodeDescription;
  /**
   * What is copied beside what is written meanwhile: `full`, everything; `top`, what the top layer of a chain of images holds; `bitmap`,
   * what is dirty; `incremental`, the same with the bitmap mode `on-success`; `none`, nothing. What is left out, the target must show
   * already. Default `full`, or `incremental` with a bitmap.
   */
  readonly sync?: SyncMode;
  /** A bitmap of the node. */
  readonly bitmap?: string;
  /**
   * What becomes of the bitmap: `on-success`, it tells of what is written from the end on, if the job has succeeded, and of all that was
   * dirty before too, if it has not; `always`, where the job has failed, of what was not copied, and of what was written since the start;
   * `never`, it goes on as if there had been no job. Default `on-success`.
   */
  readonly bitmapMode?: BitmapMode;
  /**
   * `background`: what is written is copied later. `write-blocking`: it is written on both sides at the same time, so what differs only
   * becomes less. `MirrorJob.change` switches. Default `background`.
   */
  readonly copyMode?: CopyMode;
  /** Which bitmaps go along when the target comes into use: those that record, without a gap, or none. Default `recording`. */
  readonly bitmaps?: 'recording' | 'none';
  /**
   * When the bitmaps that the target has already begin to note what is written there: from the beginning, `always`, or only when the job
   * is ready, `when-ready`: those that know of what the job copies until then. Default `always`.
   */
  readonly targetRecords?: 'always' | 'when-ready';
  /** The target is known to read as zero. Default false. */
  readonly targetIsZero?: boolean;
  /** Data that is nothing but zeroes is zeroed in the target, with `unmap` as a hole. Default `off`. */
  readonly detectZeroes?: DetectZeroes;
  /**
   * What happens when reading fails: `report`, the job fails; `stop`, it waits for a human; `ignore`, the target gets zeroes there, which the
   * report counts, and it is tried again in each round. Default `report`.
   */
  readonly onSourceError?: JobErrorPolicy;
  /**
   * What happens when the target fails: `report`, the job fails; `stop`, it waits for a human; `ignore`, it is tried again, with longer and
   * longer pauses. Writers of the disk are not told, and do not wait. Default `report`.
   */
  readonly onTargetError?: JobErrorPolicy;
  /** For so many seconds a writer waits for the target in the mode `write-blocking`; what takes longer is copied later. Default 5. */
  readonly writeTimeout?: number;
}

/** A moment of a mirror job. */
export interface MirrorProgress extends JobProgress {
  /** Whether the target has caught up; from then on it is kept up to date. */
  isReady: boolean;
  /** How writes get to the target that begin now. */
  copyMode: CopyMode;
  /** Bytes that were written and are not copied yet, beside those of the round that goes on. */
  dirtyBytes: number;
}

/** Result of a mirror job. */
export interface MirrorReport {
  /** Whether the target is used in place of the node from then on. */
  readonly completed: boolean;
  /** The node of the target; it is closed where the job has opened it, and has not completed. */
  readonly target: string;
  /** Bytes that the job has read and written; what writers have written on both sides is not in it. */
  readonly movedBytes: number;
  /** Bytes of the target that the job has zeroed. */
  readonly zeroedBytes: number;
  /** Bytes that could not be read, and are zero in the target. */
  readonly unreadBytes: number;
  /** The bitmaps that went along. */
  readonly bitmaps: readonly string[];
}

const check = optionCheck<MirrorOptions>({
  ...GRAPH_JOB_OPTIONS,
  node: { needed: 'the name of the node that is mirrored' },
  target: { needed: 'the name or the description of the node that the copy goes to' },
  sync: 'any',
  bitmap: 'any',
  bitmapMode: 'any',
  copyMode: 'any',
  bitmaps: 'any',
  targetRecords: 'any',
  targetIsZero: 'flag',
  detectZeroes: 'any',
  onSourceError: 'any',
  onTargetError: 'any',
  writeTimeout: 'any',
});

const POLICIES = ['report', 'stop', 'ignore'] as const;
const CHOICES = {
  sync: ['full', 'top', 'bitmap', 'incremental', 'none'],
  bitmapMode: ['on-success', 'always', 'never'],
  copyMode: ['background', 'write-blocking'],
  bitmaps: ['recording', 'none'],
  targetRecords: ['always', 'when-ready'],
  detectZeroes: ['off', 'on', 'unmap'],
  onSourceError: POLICIES,
  onTargetError: POLICIES,
} as const;

/** Options with everything said. */
export type CheckedMirror = Required<Omit<MirrorOptions, 'bitmap' | keyof GraphJobOptions>> &
  Pick<MirrorOptions, 'bitmap'>;

/** @throws TypeError or RangeError for options that make no sense. */
export function checkMirror(options: MirrorOptions): CheckedMirror {
  check('Graph.mirror', options);
  for (const [key, choices] of Object.entries(CHOICES)) {
    checkChoice(key, options[key as keyof typeof CHOICES], choices);
  }
  const { node, target, bitmap } = options;
  checkNames(options);
  const { sync = bitmap === undefined ? 'full' : 'incremental', writeTimeout = 5 } = options;
  checkBitmap(sync, options);
  if (typeof writeTimeout !== 'number') {
    throw new TypeError(`writeTimeout must be a number of seconds, not ${typeof writeTimeout}`);
  }
  if (!(writeTimeout > 0 && writeTimeout <= 2_000_000)) {
    throw new RangeError(
      `writeTimeout must be above 0, and 2000000 seconds at most, not ${writeTimeout}`,
    );
  }
  return {
    node,
    target,
    sync,
    ...(bitmap !== undefined && { bitmap }),
    bitmapMode: options.bitmapMode ?? 'on-success',
    copyMode: options.copyMode ?? 'background',
    bitmaps: options.bitmaps ?? 'recording',
    targetRecords: options.targetRecords ?? 'always',
    targetIsZero: options.targetIsZero ?? false,
    detectZeroes: options.detectZeroes ?? 'off',
    onSourceError: options.onSourceError ?? 'report',
    onTargetError: options.onTargetError ?? 'report',
    writeTimeout,
  };
}

/** What of a mirror can be changed while it runs. */
export interface MirrorChange {
  /** See {@link MirrorOptions}. */
  readonly copyMode: CopyMode;
}

const checkChangeOptions = optionCheck<MirrorChange>({
  copyMode: { needed: 'background or write-blocking' },
});

/** @throws TypeError */
export function checkMirrorChange(change: MirrorChange): CopyMode {
  checkChangeOptions('MirrorJob.change', change);
  checkChoice('copyMode', change.copyMode, CHOICES.copyMode);
  return change.copyMode;
}

function checkChoice(key: string, value: unknown, choices: readonly string[]): void {
  if (value === undefined || choices.includes(value as string)) return;
  throw new TypeError(`${key} must be one of ${choices.join(', ')}, not ${value}`);
}

function checkNames({ node, target, bitmap }: MirrorOptions): void {
  if (typeof node !== 'string') {
    throw new TypeError(`node must be the name of a node, not ${JSON.stringify(node)}`);
  }
  if (typeof target !== 'string' && (typeof target !== 'object' || target === null)) {
    const told = JSON.stringify(target);
    throw new TypeError(`target must be the name or the description of a node, not ${told}`);
  }
  if (target === node) throw new TypeError(`node '${node}' cannot be its own target`);
  if (bitmap === undefined || typeof bitmap === 'string') return;
  throw new TypeError(`bitmap must be the name of a bitmap, not ${JSON.stringify(bitmap)}`);
}

function checkBitmap(sync: SyncMode, { bitmap, bitmapMode }: MirrorOptions): void {
  const isNeeded = sync === 'bitmap' || sync === 'incremental';
  if (isNeeded !== (bitmap !== undefined)) {
    throw new TypeError(
      isNeeded ? `sync ${sync} needs a bitmap` : `sync ${sync} takes no bitmap: say sync: bitmap`,
    );
  }
  if (bitmap === undefined && bitmapMode !== undefined) {
    throw new TypeError('bitmapMode needs a bitmap');
  }
  if (sync === 'incremental' && bitmapMode !== undefined && bitmapMode !== 'on-success') {
    throw new TypeError('sync incremental has the bitmap mode on-success: say sync: bitmap');
  }
}
