import {
  type Compression,
  MAX_CLUSTER_BITS,
  MIN_CLUSTER_BITS,
  MIN_EXTENDED_CLUSTER_BITS,
} from '../../../../qcow2/index.js';
import { isPowerOfTwo, optionCheck } from '../../../../util/index.js';

/**
 * How much of a new image is laid out at once: `metadata` maps every cluster, `falloc` reserves its space as well, and
 * `full` writes it.
 */
export type Preallocation = 'off' | 'metadata' | 'falloc' | 'full';

/** How a new qcow2 image is made: the options of `qemu-img create`, with the same defaults. */
export interface Qcow2Options {
  /** Bytes of the disk; rounded up to 512, as no reader of the format takes less. */
  readonly size: number;
  /** Bytes: a power of two, 512 to 2 MiB, and 16 KiB at least with `extendedL2`. Default 64 KiB. */
  readonly clusterSize?: number;
  /** Version of the format: 3 (default), or 2, which has next to none of the other options. */
  readonly version?: 2 | 3;
  /** Width of a refcount: a power of two, 1 to 64. Default 16. */
  readonly refcountBits?: number;
  /** Allocate in units of a 32nd of a cluster. Default false. */
  readonly extendedL2?: boolean;
  /** How clusters are compressed that will be. Default `deflate`. */
  readonly compressionType?: Compression;
  /** How much is laid out at once. Default `off`. */
  readonly preallocation?: Preallocation;
  /** The image below: its name as it shall stand in the new image, and its format, which readers must not guess. */
  readonly backing?: { readonly filename: string; readonly format: string };
  /** @internal No file below is this one, as the caller knows: they are not looked at. Default false. */
  readonly backingIsKnown?: boolean;
  /**
   * A file for the guest's clusters; a relative name counts from the image's folder. It is made. The image names it by its
   * whole path: QEMU looks for a relative name in the folder that it runs in.
   */
  readonly dataFile?: string;
  /** The data file is there already, empty and as long as the disk, wherever that is. Default false. */
  readonly dataFileMade?: boolean;
  /** The data file is always a raw image of the disk. Default false. */
  readonly dataFileRaw?: boolean;
  /** Let writers postpone refcounts. Ours never needs to. Default false. */
  readonly lazyRefcounts?: boolean;
  /** Fail with errno EEXIST where the image or its data file exists, and follow no symbolic link. Default false. */
  readonly exclusive?: boolean;
  /** The file is there, made by the caller for this; see `createRawFile`. */
  readonly inode?: string | undefined;
  /** Permission bits of a new file, less those that the process masks. Default 0666. */
  readonly mode?: number;
  /** Fires to end the work; it fails with ERR_ABORTED. */
  readonly signal?: AbortSignal | undefined;
}

/** Which clusters of the disk a new image maps: a bitmap of clusters, or what can be asked like one. */
export interface MappedClusters {
  readonly count: number;
  nextDirty(offset: number, end?: number): number;
  nextZero(offset: number, end?: number): number;
}

export const checkQcow2Options = optionCheck<Qcow2Options>({
  size: { needed: 'bytes of the disk' },
  clusterSize: 'any',
  version: 'any',
  refcountBits: 'any',
  extendedL2: 'flag',
  compressionType: 'any',
  preallocation: 'any',
  backing: 'any',
  backingIsKnown: 'flag',
  dataFile: 'any',
  dataFileMade: 'flag',
  dataFileRaw: 'flag',
  lazyRefcounts: 'flag',
  exclusive: 'flag',
  mode: 'any',
  inode: 'any',
  signal: 'signal',
});

const checkBackingKeys = optionCheck<NonNullable<Qcow2Options['backing']>>({
  filename: { needed: 'the name of the backing file, as it shall stand in the image' },
  format: { needed: 'the format of the backing file, which is never guessed' },
});

/** @throws TypeError for what cannot stand in an image: without a name nothing would be below it. */
export function checkBacking(owner: string, backing: NonNullable<Qcow2Options['backing']>): void {
  checkBackingKeys(owner, backing);
  for (const key of ['filename', 'format'] as const) {
    const value: unknown = backing[key];
    if (typeof value === 'string' && value !== '') continue;
    throw new TypeError(
      `${owner}: ${key} must be a text that is not empty, not ${JSON.stringify(value)}`,
    );
  }
}

/** Options with every default in its place. */
export type CheckedOptions = Required<
  Omit<Qcow2Options, 'backing' | 'dataFile' | 'inode' | 'signal'>
> &
  Pick<Qcow2Options, 'backing' | 'dataFile' | 'inode' | 'signal'>;

/** The largest multiple of 512 that is exact. */
const LARGEST_DISK = Number.MAX_SAFE_INTEGER - 511;

const DEFAULTS = {
  clusterSize: 64 * 1024,
  version: 3,
  refcountBits: 16,
  extendedL2: false,
  compressionType: 'deflate',
  preallocation: 'off',
  backingIsKnown: false,
  dataFileRaw: false,
  dataFileMade: false,
  lazyRefcounts: false,
  exclusive: false,
  mode: 0o666,
} as const;

const PREALLOCATIONS: readonly string[] = ['off', 'metadata', 'falloc', 'full'];

/** @throws RangeError, or TypeError for options that do not go together. */
export function checkOptions(given: Qcow2Options): CheckedOptions {
  const isGiven = ([, value]: [string, unknown]) => value !== undefined;
  const options: CheckedOptions = {
    ...DEFAULTS,
    ...(Object.fromEntries(Object.entries(given).filter(isGiven)) as unknown as Qcow2Options),
  };
  const { size, clusterSize, extendedL2, refcountBits, preallocation, compressionType } = options;
  if (!Number.isSafeInteger(size) || size < 0 || !Number.isSafeInteger(size + 511)) {
    throw new RangeError(
      `a size must be a whole number of bytes, at most ${LARGEST_DISK}, not ${size}`,
    );
  }
  const least = 2 ** (extendedL2 ? MIN_EXTENDED_CLUSTER_BITS : MIN_CLUSTER_BITS);
  const most = 2 ** MAX_CLUSTER_BITS;
  if (!isPowerOfTwo(clusterSize) || clusterSize < least || clusterSize > most) {
    throw new RangeError(
      `clusterSize must be a power of two, ${least} to ${most}, not ${clusterSize}`,
    );
  }
  if (!isPowerOfTwo(refcountBits) || refcountBits > 64) {
    throw new RangeError(`refcountBits must be 1, 2, 4, 8, 16, 32 or 64, not ${refcountBits}`);
  }
  if (!PREALLOCATIONS.includes(preallocation)) {
    throw new RangeError(
      `preallocation must be ${PREALLOCATIONS.join(', ')}, not ${preallocation}`,
    );
  }
  if (compressionType !== 'deflate' && compressionType !== 'zstd') {
    throw new RangeError(`compressionType must be deflate or zstd, not ${compressionType}`);
  }
  checkVersion(options);
  checkTogether(options);
  const isRaw = options.dataFileRaw && preallocation === 'off';
  return {
    ...options,
    size: Math.ceil(size / 512) * 512,
    // A raw data file is the disk even where the image maps nothing; so the image maps all of it.
    preallocation: isRaw ? 'metadata' : preallocation,
  };
}

function checkVersion(options: CheckedOptions): void {
  const { version } = options;
  if (version !== 2 && version !== 3)
    throw new RangeError(`version must be 2 or 3, not ${version}`);
  if (version === 3) return;
  const newer: [string, boolean][] = [
    ['refcountBits other than 16', options.refcountBits !== 16],
    ['extendedL2', options.extendedL2],
    ['compressionType zstd', options.compressionType !== 'deflate'],
    ['dataFile', options.dataFile !== undefined],
    ['lazyRefcounts', options.lazyRefcounts],
  ];
  const found = newer.find(([, used]) => used);
  if (found !== undefined) throw new TypeError(`${found[0]} needs version 3`);
}

function checkTogether(options: CheckedOptions): void {
  const { backing, dataFile, dataFileRaw, preallocation, extendedL2 } = options;
  if (dataFileRaw && dataFile === undefined) throw new TypeError('dataFileRaw needs a dataFile');
  if (dataFileRaw && backing !== undefined) {
    throw new TypeError('a raw data file holds the whole disk: there can be no backing file');
  }
  if (backing !== undefined && preallocation !== 'off' && !extendedL2) {
    throw new TypeError(
      'preallocation over a backing file needs extendedL2: clusters that are mapped would hide it',
    );
  }
  if (backing !== undefined && (backing.filename === '' || !backing.format)) {
    throw new TypeError('a backing file needs its name and its format, which is never guessed');
  }
}
