import type { Qcow2Options } from '../../block/index.js';
import { refusal } from '../core/index.js';

type Preallocation = 'off' | 'metadata' | 'falloc' | 'full';

/** What `blockdev-create` says of a file. */
export interface FileWish {
  readonly filename: string;
  readonly size: number;
  readonly preallocation?: Preallocation;
}

/** What `blockdev-create` says of a qcow2 image, without the nodes that hold it. */
export interface Qcow2Wish {
  readonly size: number;
  readonly 'data-file-raw'?: boolean;
  readonly 'extended-l2'?: boolean;
  readonly version?: 'v2' | 'v3';
  readonly 'backing-file'?: string;
  readonly 'backing-fmt'?: string;
  readonly 'cluster-size'?: number;
  readonly preallocation?: Preallocation;
  readonly 'lazy-refcounts'?: boolean;
  readonly 'refcount-bits'?: number;
  readonly 'compression-type'?: 'zlib' | 'zstd';
}

const SECTOR = 512;
const [LEAST_CLUSTER, LEAST_EXTENDED, MOST_CLUSTER] = [512, 16_384, 2 ** 21];

/**
 * How a new image is made.
 *
 * @param dataFile the file that holds the bytes of the disk, where another one does than the image.
 * @throws QmpCommandError in the words of QEMU for what makes no sense together.
 */
export function qcow2Creation(wish: Qcow2Wish, dataFile: string | undefined): Qcow2Options {
  checkClusters(wish);
  checkBacking(wish);
  checkVersion(wish, dataFile);
  checkDataFile(wish, dataFile);
  const { 'backing-file': filename, 'backing-fmt': format, 'compression-type': type } = wish;
  if (filename !== undefined && format === undefined) {
    throw refusal('say backing-fmt too: the format of a backing file is never guessed');
  }
  return {
    size: wish.size,
    clusterSize: wish['cluster-size'] ?? 65_536,
    version: wish.version === 'v2' ? 2 : 3,
    refcountBits: wish['refcount-bits'] ?? 16,
    extendedL2: wish['extended-l2'] ?? false,
    compressionType: type === 'zstd' ? 'zstd' : 'deflate',
    preallocation: wish.preallocation ?? 'off',
    lazyRefcounts: wish['lazy-refcounts'] ?? false,
    ...(filename !== undefined && format !== undefined && { backing: { filename, format } }),
    ...(dataFile !== undefined && { dataFile, dataFileMade: true }),
    dataFileRaw: wish['data-file-raw'] ?? false,
  };
}

function checkClusters({
  size,
  'cluster-size': bytes = 65_536,
  'extended-l2': extended,
}: Qcow2Wish) {
  if (size % SECTOR !== 0) throw refusal('Image size must be a multiple of 512 bytes');
  if (!isPowerOfTwo(bytes) || bytes < LEAST_CLUSTER || bytes > MOST_CLUSTER) {
    throw refusal('Cluster size must be a power of two between 512 and 2048k');
  }
  if (!extended || bytes >= LEAST_EXTENDED) return;
  throw refusal(
    'Extended L2 entries are only supported with cluster sizes of at least 16384 bytes',
  );
}

function checkBacking(wish: Qcow2Wish): void {
  const { 'backing-file': file, 'backing-fmt': format, preallocation = 'off' } = wish;
  if (file !== undefined && preallocation !== 'off' && !wish['extended-l2']) {
    throw refusal(
      'Backing file and preallocation can only be used at the same time if extended_l2 is on',
    );
  }
  if (file === undefined && format !== undefined) {
    throw refusal('Backing format cannot be used without backing file');
  }
}

/** The older version has next to none of the options. */
function checkVersion(wish: Qcow2Wish, dataFile: string | undefined): void {
  const { 'refcount-bits': bits = 16, 'lazy-refcounts': isLazy, 'compression-type': type } = wish;
  const isOld = wish.version === 'v2';
  const later = (level: string) =>
    refusal(`${level} compatibility level 1.1 and above (use version=v3 or greater)`);
  if (isOld && isLazy) throw later('Lazy refcounts only supported with');
  if (!isPowerOfTwo(bits) || bits > 64) {
    throw refusal('Refcount width must be a power of two and may not exceed 64 bits');
  }
  if (isOld && bits !== 16) {
    const what = 'Different refcount widths than 16 bits require';
    throw refusal(`${what} compatibility level 1.1 or above (use version=v3 or greater)`);
  }
  if (isOld && dataFile !== undefined) {
    throw later('External data files are only supported with');
  }
  if (isOld && type === 'zstd') throw later('Non-zlib compression type is only supported with');
}

function checkDataFile(
  { 'data-file-raw': isRaw, 'backing-file': backing }: Qcow2Wish,
  dataFile: string | undefined,
): void {
  if (!isRaw) return;
  if (dataFile === undefined) throw refusal('data-file-raw requires data-file');
  if (backing !== undefined) {
    throw refusal('Backing file and data-file-raw cannot be used at the same time');
  }
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && Number.isInteger(Math.log2(value));
}
