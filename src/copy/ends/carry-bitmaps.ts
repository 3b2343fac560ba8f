/** What becomes of the bitmaps of an image whose disk is put into another one; docs/bitmaps.md has the rules. */
import type { DirtyBitmapInfo } from '../../bitmap/index.js';
import {
  type BitmapImage,
  type BlockDevice,
  type DeviceDescription,
  imageOf,
  openBitmaps,
  type Qcow2Description,
} from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import type { CopyOptions } from '../options/index.js';

/** Where an image is, and which file it is. */
export interface MadeImage {
  readonly path: string;
  /** `DEVICE:INODE` */
  readonly inode: string;
}

/** The bitmaps of a source that a new image is going to have. */
export interface CarriedBitmaps {
  readonly names: readonly string[];
  /** What a person should know of those that stay behind. */
  readonly warnings: readonly string[];
  /** Puts them into an image, which shows the same disk by now, and which nobody else has open. */
  addTo(image: MadeImage): Promise<void>;
}

/**
 * The bitmaps that a copy carries along, found out before anything is written; undefined where it is to carry none.
 *
 * @throws TypeError for options that contradict one another; LacunaError ERR_BITMAP_INCONSISTENT,
 * ERR_DEVICE_UNSUPPORTED where the source is a snapshot, and what opening its bitmaps throws.
 */
export async function bitmapsToCarry(
  {
    carryBitmaps = false,
    skipBrokenBitmaps = false,
  }: Pick<CopyOptions, 'carryBitmaps' | 'skipBrokenBitmaps'>,
  source: BlockDevice,
  signal: AbortSignal,
): Promise<CarriedBitmaps | undefined> {
  if (skipBrokenBitmaps && !carryBitmaps) {
    throw new TypeError('no bitmaps are copied, so none are skipped: ask for the bitmaps as well');
  }
  if (!carryBitmaps) return undefined;
  const { name } = source;
  const description = imageOf(source.description);
  if (description === undefined) {
    const warnings = [`${name} keeps no bitmaps, so that none could be carried along`];
    return { names: [], warnings, addTo: async () => {} };
  }
  refuseSnapshot(description, name);
  await using image = await openBitmaps(description, { signal });
  const infos = image.bitmaps.list();
  const broken = infos.filter(({ inconsistent }) => inconsistent);
  if (broken.length > 0 && !skipBrokenBitmaps) throw cannotCarry(broken[0].name, name);
  const carried = infos.filter(({ inconsistent }) => !inconsistent);
  return {
    names: carried.map((info) => info.name),
    warnings: broken.map((info) => `Bitmap '${info.name}' of ${name} stays there: ${BROKEN}`),
    addTo: (made) => addAll(carried, description, made),
  };
}

const BROKEN = 'it is inconsistent';

/** A snapshot shows the disk as it was, and bitmaps tell what was written since some moment until now. */
function refuseSnapshot({ snapshot }: Qcow2Description, name: string): void {
  if (snapshot === undefined) return;
  const message = `The bitmaps of ${name} tell of its disk as it is now, not of snapshot "${snapshot}": copy the snapshot without them`;
  throw new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: name });
}

function cannotCarry(bitmap: string, image: string): LacunaError {
  const message =
    `Bitmap '${bitmap}' of ${image} is inconsistent, or in use by a program that writes the image, and cannot be copied: ` +
    'leave out such bitmaps (--skip-broken-bitmaps), or remove it';
  return new LacunaError('ERR_BITMAP_INCONSISTENT', message, { device: image });
}

async function addAll(
  infos: readonly DirtyBitmapInfo[],
  source: Qcow2Description,
  made: MadeImage,
): Promise<void> {
  if (infos.length === 0) return;
  await using from = await openBitmaps(source);
  await using to = await openNew(made);
  for (const info of infos) await carryBitmap(info, from, to);
  await to.store();
}

/** Takes the bitmaps out of an unfinished image again, which a run that died has put there. */
export async function removeBitmaps(made: MadeImage): Promise<void> {
  await using image = await openNew(made);
  const names = image.bitmaps.list().map(({ name }) => name);
  if (names.length === 0) return;
  image.bitmaps.transaction(names.map((name) => ({ type: 'remove', name })));
  await image.store();
}

function openNew({ path: filename, inode }: MadeImage): Promise<BitmapImage> {
  const file = { driver: 'file', filename, inode } as const;
  const description: DeviceDescription = { driver: 'qcow2', file };
  return openBitmaps(description, { writable: true });
}

/**
 * Adds the dirt of a bitmap to that of the same name in another image, which gets one like it where it has none, and
 * lets it record if the first one does.
 *
 * @returns why that cannot be, if so.
 */
export async function carryBitmap(
  { name, granularity, recording, inconsistent }: DirtyBitmapInfo,
  from: BitmapImage,
  { bitmaps }: BitmapImage,
): Promise<string | undefined> {
  if (inconsistent) return BROKEN;
  const there = bitmaps.list().find((info) => info.name === name);
  if (there?.inconsistent) return 'that of the backing file is inconsistent';
  if (there === undefined) bitmaps.add({ name, granularity, persistent: true, disabled: true });
  using bits = await from.load(name);
  await bitmaps.load(name);
  bits.resize(bitmaps.size);
  bitmaps.merge(name, [bits]);
  bitmaps.transaction([{ type: recording ? 'enable' : 'disable', name }]);
  return undefined;
}
