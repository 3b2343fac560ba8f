import type { DetectZeroes } from '../../../copy/index.js';
import { optionCheck } from '../../../util/index.js';
import type { NodeDescription } from '../../core/index.js';
import { GRAPH_JOB_OPTIONS, type GraphJobOptions } from '../group/index.js';
import type { BitmapMode, JobErrorPolicy, SyncMode } from '../rounds/index.js';

/** A node, and where its backup goes. */
export interface BackupPair {
  /** The name of the node. */
  readonly node: string;
  /** A node that nobody else uses, or the description of one: at least as large as the first. */
  readonly target: string | NodeDescription;
  /** What the node is called that keeps what is about to be written, so that others can read through it. Default: one that is free. */
  readonly filter?: string;
}

/** A backup job. */
export interface BackupJobOptions extends GraphJobOptions {
  /** The nodes and their targets: all at one point in time, and all succeed or none. */
  readonly disks: readonly BackupPair[];
  /**
   * `full`, everything; `top`, what the top layer of a chain of images holds; `bitmap`, what is dirty; `incremental`, the same with the bitmap
   * mode `on-success`; `none`, only what is about to be changed, until the job is stopped. Default `full`, or `incremental` with a bitmap.
   */
  readonly sync?: SyncMode;
  /** A bitmap that each of the nodes has. */
  readonly bitmap?: string;
  /**
   * `on-success`, it tells of what was written since the start, if the job has succeeded, and of all that was dirty before too, if it has
   * not; `always`, where the job has failed, of what was not copied, and of what was written since the start; `never`, it goes on as if there
   * had been no job. Default `on-success`.
   */
  readonly bitmapMode?: BitmapMode;
  /** The targets are known to read as zero. Default false. */
  readonly targetIsZero?: boolean;
  /** Data that is nothing but zeroes is zeroed in the targets, with `unmap` as a hole. Default `unmap`. */
  readonly detectZeroes?: DetectZeroes;
  /** Default `report`. */
  readonly onSourceError?: Exclude<JobErrorPolicy, 'ignore'>;
  /** Default `report`. */
  readonly onTargetError?: Exclude<JobErrorPolicy, 'ignore'>;
  /** Where what is about to be changed cannot be copied: `break-snapshot` fails the job, `break-guest-write` the write. Default the first. */
  readonly onCopyError?: 'break-guest-write' | 'break-snapshot';
  /** Seconds after which such a copy has failed; 0: no limit. Default 0. */
  readonly copyTimeout?: number;
}

/** Result of a backup job. */
export interface BackupJobReport {
  /** Bytes that the job has read and written; what writers had copied before them is not in it. */
  readonly movedBytes: number;
  /** Bytes of the targets that the job has zeroed. */
  readonly zeroedBytes: number;
}

const check = optionCheck<BackupJobOptions>({
  ...GRAPH_JOB_OPTIONS,
  disks: { needed: 'a list; each is { node, target }' },
  sync: 'any',
  bitmap: 'any',
  bitmapMode: 'any',
  targetIsZero: 'flag',
  detectZeroes: 'any',
  onSourceError: 'any',
  onTargetError: 'any',
  onCopyError: 'any',
  copyTimeout: 'any',
});

const checkPair = optionCheck<BackupPair>({
  node: { needed: 'the name of the node that is backed up' },
  target: { needed: 'the name or the description of the node that the backup goes to' },
  filter: 'any',
});

const CHOICES = {
  detectZeroes: ['off', 'on', 'unmap'],
  sync: ['full', 'top', 'bitmap', 'incremental', 'none'],
  bitmapMode: ['on-success', 'always', 'never'],
  onSourceError: ['report', 'stop'],
  onTargetError: ['report', 'stop'],
  onCopyError: ['break-guest-write', 'break-snapshot'],
} as const;

/** Options with everything said. */
export type CheckedOptions = Required<Omit<BackupJobOptions, 'bitmap' | keyof GraphJobOptions>> &
  Pick<BackupJobOptions, 'bitmap'>;

/** @throws TypeError or RangeError for options that make no sense. */
export function checkBackupJob(options: BackupJobOptions): CheckedOptions {
  check('Graph.backup', options);
  const { disks, bitmap, sync = bitmap === undefined ? 'full' : 'incremental' } = options;
  const isList = Array.isArray(disks) && disks.length > 0;
  if (!isList) throw new TypeError('disks must be a list of { node, target }, one or more');
  for (const [index, pair] of disks.entries()) checkPair(`Graph.backup: disks[${index}]`, pair);
  if (new Set(disks.map(({ node }) => node)).size < disks.length) {
    throw new TypeError('disks must name each node once');
  }
  for (const [key, choices] of Object.entries(CHOICES)) {
    const value = options[key as keyof typeof CHOICES];
    if (value === undefined || (choices as readonly string[]).includes(value)) continue;
    throw new TypeError(`${key} must be one of ${choices.join(', ')}, not ${value}`);
  }
  checkBitmap(sync, options);
  const { copyTimeout = 0 } = options;
  if (!(copyTimeout >= 0 && copyTimeout <= 2_000_000)) {
    throw new RangeError(`copyTimeout must be 0 to 2000000 seconds, not ${copyTimeout}`);
  }
  return {
    disks,
    sync,
    ...(bitmap !== undefined && { bitmap }),
    bitmapMode: options.bitmapMode ?? 'on-success',
    targetIsZero: options.targetIsZero ?? false,
    detectZeroes: options.detectZeroes ?? 'unmap',
    onSourceError: options.onSourceError ?? 'report',
    onTargetError: options.onTargetError ?? 'report',
    onCopyError: options.onCopyError ?? 'break-snapshot',
    copyTimeout,
  };
}

function checkBitmap(sync: SyncMode, { bitmap, bitmapMode, autoFinalize }: BackupJobOptions): void {
  const isNeeded = sync === 'bitmap' || sync === 'incremental';
  if (isNeeded && bitmap === undefined) throw new TypeError(`sync ${sync} needs a bitmap`);
  if (sync === 'none' && bitmap !== undefined) {
    throw new TypeError('sync none takes no bitmap: nobody knows when everything was copied');
  }
  if (sync === 'none' && autoFinalize === false) {
    throw new TypeError('sync none ends when it is stopped: leave out autoFinalize');
  }
  if (bitmap === undefined && bitmapMode !== undefined) {
    throw new TypeError('bitmapMode needs a bitmap');
  }
  if (sync === 'incremental' && bitmapMode !== undefined && bitmapMode !== 'on-success') {
    throw new TypeError('sync incremental has the bitmap mode on-success: say sync: bitmap');
  }
}
