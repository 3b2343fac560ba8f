import type { NbdServerAddress } from '../../nbd/index.js';
import { checkKnown, optionCheck } from '../../util/index.js';
import type { DiskChoice } from '../inspect/index.js';

/** A bitmap of a machine. */
export interface MachineBitmap {
  /** The disk, or the node, that has it. */
  readonly disk: DiskChoice;
  /** Its name: 1 to 1023 bytes. */
  readonly name: string;
}

/** A bitmap that takes in what is allocated. */
export interface PopulateTarget extends MachineBitmap {
  /** Bytes that a bit of a new one stands for: a power of two from 512 to 2^31. Default 64 KiB. */
  readonly granularity?: number | undefined;
  /** Whether a new one is stored in the image. Default: where the image can. */
  readonly persistent?: boolean | undefined;
}

/** Which disks or layers of a machine say what is allocated, and which of its bitmaps take it in. */
export interface MachinePopulateOptions {
  /**
   * Disks, or nodes for the layers below them. Those that are written are of the size of the targets; a backing file may have
   * another.
   */
  readonly sources: readonly DiskChoice[];
  /**
   * Bitmaps of nodes of one size. One that is not there is added, and then records; one that is there keeps what it marks, and
   * must record.
   */
  readonly targets: readonly PopulateTarget[];
  /**
   * `full`: all that does not read as zero. `top`: all that the top layer of each source holds, zeroes included. Default
   * `full`.
   */
  readonly mode?: 'full' | 'top' | undefined;
  /** Bitmaps of the machine whose dirt the targets get as well, such as one that a backing file has stored. */
  readonly merge?: readonly MachineBitmap[] | undefined;
  /**
   * Where this process serves the bits to QEMU over NBD, for a QEMU that may not open a file in the folder. By default it opens
   * the file.
   */
  readonly serve?: NbdServerAddress | undefined;
  /** Fires to end the work; it fails with ERR_ABORTED. */
  readonly signal?: AbortSignal | undefined;
}

const OWNER = 'Machine.populate';

const check = optionCheck<MachinePopulateOptions>({
  sources: { needed: 'a list of disks or nodes that say what is allocated' },
  targets: { needed: 'a list; each is { disk, name }' },
  mode: 'any',
  merge: 'any',
  serve: 'any',
  signal: 'signal',
});
const BITMAP = { disk: { needed: 'a disk or a node' }, name: { needed: 'of the bitmap' } } as const;
const checkBitmap = optionCheck<MachineBitmap>(BITMAP);
const checkTarget = optionCheck<PopulateTarget>({
  ...BITMAP,
  granularity: 'any',
  persistent: 'flag',
});

const LONGEST_NAME = 1023;
const FINEST = 512;
const COARSEST = 2 ** 31;

/** @throws TypeError, RangeError */
export function checkPopulateOptions(options: MachinePopulateOptions): void {
  check(OWNER, options);
  const { sources, targets, mode = 'full', merge = [] } = options;
  checkKnown(OWNER, 'mode', mode, ['full', 'top']);
  for (const [what, list] of Object.entries({ sources, targets })) {
    if (Array.isArray(list) && list.length > 0) continue;
    throw new TypeError(`${OWNER}: ${what} must be a list of at least one`);
  }
  if (!Array.isArray(merge)) throw new TypeError(`${OWNER}: merge must be a list of bitmaps`);
  for (const [i, bitmap] of merge.entries()) {
    checkBitmap(`${OWNER}: merge[${i}]`, bitmap);
    checkName(`${OWNER}: merge[${i}]`, bitmap);
  }
  for (const [i, target] of targets.entries()) {
    const owner = `${OWNER}: targets[${i}]`;
    checkTarget(owner, target);
    checkName(owner, target);
    checkGranularity(owner, target);
  }
}

function checkName(owner: string, { name }: MachineBitmap): void {
  const bytes = typeof name === 'string' ? Buffer.byteLength(name) : 0;
  if (bytes > 0 && bytes <= LONGEST_NAME) return;
  throw new TypeError(`${owner}: the name of a bitmap has 1 to ${LONGEST_NAME} bytes`);
}

function checkGranularity(owner: string, { granularity = FINEST }: PopulateTarget): void {
  if (isGranularity(granularity)) return;
  throw new RangeError(
    `${owner}: granularity must be a power of two from ${FINEST} to ${COARSEST}, not ${granularity}`,
  );
}

export function isGranularity(bytes: number): boolean {
  return Number.isInteger(Math.log2(bytes)) && bytes >= FINEST && bytes <= COARSEST;
}
