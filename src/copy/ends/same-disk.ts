/**
 * Whether a copy would write over what it reads. One disk has many names: a path, a link, a node of a device, an export.
 *
 * Reading a place and writing the same bytes back is harmless, and so is zeroing what the source says reads as zero;
 * therefore nothing is ever zeroed or discarded that has to be read first, and two names of one disk may be copied onto
 * each other. It is not harmless where the bytes of a target lie elsewhere in the source: where the target holds the
 * file of an image that the source is made of, clusters that are still to be read would be written over.
 */
import fs from 'node:fs';
import {
  type BlockDevice,
  type DeviceDescription,
  isRemote,
  isSameDevice,
  openDevice,
  plainFile,
  takesKey,
} from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import { closeAfter } from '../../util/index.js';
import { isLeaf, type LayerLeaf, type Leaf, leavesOf, nameOfLeaf } from './layers.js';

/** How a target is written. */
interface HowWritten {
  /** A new image is made there, in which every byte of the disk lies somewhere else. Default false. */
  readonly isNewImage?: boolean;
}

/**
 * Refuses a target, to be written in place, that is known to be the source itself, or to hold an image below it.
 *
 * @throws LacunaError ERR_COPY_MISMATCH
 */
export async function refuseSource(
  target: DeviceDescription | undefined,
  source: BlockDevice,
  { isNewImage = false }: HowWritten = {},
): Promise<void> {
  const below = leavesOf(source.description);
  for (const own of ownLeaves(target)) {
    for (const other of below) {
      if (!isNewImage && isHarmless(own, other)) continue;
      if (!(await isSameDevice(own.leaf, other.leaf))) continue;
      const what = other.layer === 0 ? 'the source itself' : 'where an image below the source lies';
      throw refusal(own.leaf, `is ${what}; name another device as the target`);
    }
  }
}

/**
 * Refuses an open target that holds, as far as can be seen, an image which the source is made of, under a name that
 * does not tell: what both hold is compared in several places.
 *
 * @throws LacunaError ERR_COPY_MISMATCH
 */
export async function refuseLikeness(
  target: BlockDevice,
  source: BlockDevice,
  { isNewImage = false }: HowWritten = {},
): Promise<void> {
  const { description } = target;
  const below = leavesOf(source.description);
  // A server may let nobody else in, and have who tries wait.
  const opened = description !== undefined && isLeaf(description) ? target : undefined;
  for (const own of ownLeaves(description)) {
    for (const other of below) {
      if (!isNewImage && own.role === other.role) continue;
      if (areFiles(own.leaf, other.leaf)) continue;
      if (!(await areAlike({ leaf: own.leaf, opened }, other.leaf))) continue;
      const image = own.role === 'disk' ? other.leaf : own.leaf;
      const what = `holds the same bytes as ${nameOfLeaf(image)}, wherever both were looked at, so that the copy may write over what it has to read`;
      throw refusal(
        own.leaf,
        `${what}: name another target, or, if this is only a copy of it, erase its first 4096 bytes`,
      );
    }
  }
}

/**
 * What is below the top layer may be written if its bytes are the same places of the disk there. So may an export that
 * is copied onto itself; a file that is named twice is a slip.
 */
function isHarmless({ leaf, role }: LayerLeaf, other: LayerLeaf): boolean {
  // A part of a disk has its bytes elsewhere than the disk, or than another part.
  if (role === 'part' || other.role === 'part') return false;
  return other.role === role && (other.layer > 0 || (isRemote(leaf) && role === 'disk'));
}

/** What is written of a target; its backing files are not. */
function ownLeaves(target: DeviceDescription | undefined): LayerLeaf[] {
  return leavesOf(target).filter(({ layer }) => layer === 0);
}

/** Two regular files are told apart by their inodes; everything else may have another name. */
function areFiles(a: Leaf, b: Leaf): boolean {
  return [a, b].every((leaf) => {
    const file = plainFile(leaf);
    return file !== undefined && isRegular(file.filename);
  });
}

function isRegular(path: string): boolean {
  try {
    return fs.statSync(path).isFile();
  } catch {
    return false;
  }
}

const LOOK_BYTES = 4096;
const PLACES = 8;

/**
 * Whether two disks hold the same where an image begins, and in all other places but one: what is in use may change
 * while it is looked at.
 */
async function areAlike(
  { leaf, opened }: { leaf: Leaf; opened: BlockDevice | undefined },
  b: Leaf,
): Promise<boolean> {
  try {
    const one = opened ?? (await openDevice(readable(leaf)));
    return await closeAfter(
      async () => {
        const other = await openDevice(readable(b));
        return await closeAfter(
          () => holdSame(one, other),
          () => other.close(),
        );
      },
      async () => {
        if (opened === undefined) await one.close();
      },
    );
  } catch (error) {
    // What cannot be read tells nothing here, and the copy meets it again.
    if (error instanceof LacunaError) return false;
    throw error;
  }
}

async function holdSame(a: BlockDevice, b: BlockDevice): Promise<boolean> {
  const size = Math.min(a.size, b.size);
  let [differing, isAnything] = [0, false];
  for (let place = 0; place < PLACES; place++) {
    const offset = Math.floor((size / PLACES) * place);
    const length = Math.min(LOOK_BYTES, size - offset);
    const [one, other] = [Buffer.alloc(length), Buffer.alloc(length)];
    await Promise.all([a.read(offset, one), b.read(offset, other)]);
    isAnything ||= one.some((byte) => byte !== 0);
    if (one.equals(other)) continue;
    if (place === 0) return false;
    differing++;
  }
  return isAnything && differing <= 1;
}

/** For a look beside whoever has it open. */
function readable(leaf: Leaf): Leaf {
  const description = { ...leaf, 'read-only': true };
  return takesKey(description, 'locking') ? { ...description, locking: 'off' } : description;
}

function refusal(leaf: Leaf, what: string): LacunaError {
  const device = nameOfLeaf(leaf);
  return new LacunaError('ERR_COPY_MISMATCH', `${device} ${what}`, { device });
}
