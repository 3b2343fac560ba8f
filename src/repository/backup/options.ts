import type { Bitmap } from '../../bitmap/index.js';
import type { ImageFormat, Range } from '../../block/index.js';
import type { DeviceSource } from '../../copy/index.js';
import type { JobOptions } from '../../job/index.js';
import { optionCheck } from '../../util/index.js';
import { checkName } from '../layout/index.js';
import type { BackupMode, Manifest } from '../manifest/index.js';

/** The point that an increment is taken over. */
export interface ParentPoint {
  /** Its number. */
  readonly number: number;
  /** Its generation: what a bitmap that counts from it is named after. */
  readonly id: string;
  /**
   * Generations from this one back to the oldest of its chain. What changed since an older one is enough only where the disk
   * was not put back to an earlier state since then.
   */
  readonly generations: readonly string[];
  /** Bytes of the disk at that point. */
  readonly size: number;
}

/** A disk to back up. */
export interface BackupDisk {
  /** What the disk is called in the repository: letters, digits, `.`, `_`, `-`, at most 64. */
  readonly name: string;
  /** A path, an NBD URI, a description, or an open device, which stays open and must not change meanwhile. */
  readonly source: DeviceSource;
  /** The format inside a path. Default: from the path's ending. */
  readonly format?: ImageFormat | undefined;
  /**
   * Says what may have changed since a point: a bitmap of the size of the disk, or ranges. What is left out counts as
   * unchanged. Undefined: it is not known, and the disk is compared with its digests. Not called for a full backup.
   */
  changes?(
    parent: ParentPoint,
  ): Promise<Bitmap | Iterable<Range> | undefined> | Bitmap | Iterable<Range> | undefined;
}

/** How a machine is backed up. */
export interface BackupOptions extends JobOptions {
  /** The machine; named as a disk is. */
  readonly machine: string;
  /** All of its disks; names are unique. */
  readonly disks: readonly BackupDisk[];
  /** Take all of every disk, even where an increment could be taken. Default false. */
  readonly full?: boolean;
  /** Words to find the point by, and to keep it by in `prune`. */
  readonly tags?: readonly string[];
  /** Of the machine, kept in the manifest as it is: anything that JSON can hold. */
  readonly configuration?: unknown;
  /** The generation of the new point, where it must be known before: 16 hexadecimal digits. Default: by chance. */
  readonly id?: string;
  /** The moment whose data the disks hold, in ISO 8601. Default: now. */
  readonly time?: string;
  /**
   * @internal A folder outside the repository for notes of what is durable. A backup that has died goes on from them when it is
   * made again with the same `id`, as long as its sources show what they showed then. Not with `compress`.
   */
  readonly notes?: string;
  /** Compress what is stored: `deflate`, or `zstd`, which takes QEMU 5.1 to read. Default: not at all. */
  readonly compress?: 'deflate' | 'zstd';
  /**
   * Called when everything is stored and nothing is read any more, before the point exists: what it throws ends the backup,
   * and there is no point.
   */
  readonly beforeCommit?: () => Promise<void> | void;
  /**
   * Begin a bitmap in every qcow2 image that is backed up, so that the next increment knows what to read; older ones of
   * this repository are taken out. Default true. An image that cannot be written is left alone, with a warning.
   */
  readonly bitmaps?: boolean;
  /** Images of a chain at most; then a disk is taken in full. Default 100. */
  readonly longestChain?: number;
  /** Read sources although others may be writing them. Default false. */
  readonly forceShare?: boolean;
  /** Worker threads. Default: as `copy` chooses them. */
  readonly threads?: number;
}

/** What is going to be done about a disk, and why. */
export interface DiskPlan {
  /** What it is called in the repository. */
  readonly name: string;
  /** What it is backed up from, as a person would name it. */
  readonly source: string;
  /** Bytes of the disk. */
  readonly size: number;
  /** Whether all of it is taken, and if not, how it is known what is. */
  readonly mode: BackupMode;
  /** For people. */
  readonly reason: string;
  /** The point that the increment is taken over; null for all of the disk. */
  readonly parent: number | null;
  /** Bytes that are known to be dirty before anything is read; null where that is found by reading. */
  readonly dirtyBytes: number | null;
}

/** Result of a backup. */
export interface BackupReport {
  /** What makes the new point exist. */
  readonly point: Manifest;
  /** In the order asked for. */
  readonly disks: readonly DiskReport[];
  /** What an earlier run had left, and was removed. */
  readonly removed: readonly string[];
  /** Milliseconds from the call to the report. */
  readonly durationMs: number;
  /** What a person should know although it succeeded. */
  readonly warnings: readonly string[];
}

/** Result of the backup of one disk. */
export interface DiskReport extends DiskPlan {
  /** Bytes read from the source. */
  readonly readBytes: number;
  /** Bytes stored as data. */
  readonly movedBytes: number;
  /** Of these, bytes that the same backup had stored before its process died; 0 where it did not. */
  readonly resumedBytes: number;
  /** Bytes that the point recorded as zero. */
  readonly zeroedBytes: number;
  /** Bytes of the new files. */
  readonly storedBytes: number;
  /** The bitmap in the source that counts from this point; null if the source has no such bitmap. */
  readonly bitmap: string | null;
}

const checkAll = optionCheck<BackupOptions>({
  machine: { needed: 'the name of the machine' },
  disks: { needed: 'a list; each is { name, source }' },
  full: 'flag',
  tags: 'any',
  configuration: 'any',
  id: 'any',
  time: 'any',
  notes: 'any',
  compress: 'any',
  beforeCommit: 'callback',
  bitmaps: 'flag',
  longestChain: 'any',
  forceShare: 'flag',
  rate: 'any',
  threads: 'any',
  signal: 'signal',
});

const checkDisk = optionCheck<BackupDisk>({
  name: { needed: 'what the disk is called in the repository' },
  source: { needed: 'a path, an NBD URI, a description, or an open Device' },
  format: 'any',
  changes: 'callback',
});

/** @throws TypeError or RangeError */
export function checkBackupOptions(options: BackupOptions): void {
  checkAll('backup', options);
  checkPointOptions(options);
  const { disks } = options;
  if (!Array.isArray(disks) || disks.length === 0) {
    throw new TypeError('backup: disks must be a list with one disk at least');
  }
  for (const [i, disk] of disks.entries()) {
    checkDisk(`backup: disks[${i}]`, disk);
    checkName(`disks[${i}].name`, disk.name);
    if (disks.findIndex(({ name }) => name === disk.name) !== i) {
      throw new TypeError(`backup: two disks are called ${disk.name}: give each its own name`);
    }
  }
}

/**
 * Checks everything but the disks, which are not known yet when a backup of a running machine begins.
 *
 * @throws TypeError or RangeError
 */
export function checkPointOptions(options: Omit<BackupOptions, 'disks'>): void {
  const { machine, id, compress, tags = [], longestChain = 1, configuration } = options;
  checkName('machine', machine);
  checkMoment(options);
  if (id !== undefined && !/^[0-9a-f]{16}$/.test(id)) {
    throw new TypeError(`backup: id must be 16 hexadecimal digits, not ${id}`);
  }
  if (compress !== undefined && compress !== 'deflate' && compress !== 'zstd') {
    throw new TypeError(`backup: compress must be deflate or zstd, not ${compress}`);
  }
  if (!Array.isArray(tags) || !tags.every((tag) => typeof tag === 'string' && tag !== '')) {
    throw new TypeError('backup: tags must be a list of words');
  }
  const tooLong = tags.find((tag) => tag.length > 256);
  if (tooLong !== undefined) {
    throw new TypeError(`backup: a tag has 256 characters at most, and one has ${tooLong.length}`);
  }
  // Before hours of work, and because what JSON leaves out would make a manifest that cannot be read.
  if (configuration !== undefined && JSON.stringify(configuration) === undefined) {
    throw new TypeError(`backup: configuration must be something that JSON can hold`);
  }
  if (!Number.isInteger(longestChain) || longestChain < 1 || longestChain > 500) {
    throw new RangeError(
      `backup: longestChain must be a whole number from 1 to 500, not ${longestChain}`,
    );
  }
}

function checkMoment({ time, notes, id, compress }: Omit<BackupOptions, 'disks'>): void {
  if (time !== undefined && !isTime(time)) {
    throw new TypeError(
      `backup: time must be ISO 8601 as of Date.toISOString(), not ${JSON.stringify(time)}`,
    );
  }
  if (notes !== undefined && (id === undefined || compress !== undefined)) {
    throw new TypeError('backup: notes need an id, and do not go with compress');
  }
}

function isTime(time: unknown): boolean {
  if (typeof time !== 'string' || Number.isNaN(Date.parse(time))) return false;
  return new Date(time).toISOString() === time;
}
