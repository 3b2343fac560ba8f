/** Refuses what cannot be done with a target, before it is opened. */
import {
  type BackingName,
  type BlockDevice,
  type DeviceDescription,
  filesBelow,
  filesOf,
  imageOf,
  pathOfNamed,
} from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import { samePlaceAmong } from '../../files/index.js';
import type { CopyOptions } from '../options/index.js';

/** A file that others are made of must stay. */
export async function refuseSameFile(
  target: DeviceDescription | undefined,
  { image, baseIsKnown = false }: Pick<CopyOptions, 'image' | 'baseIsKnown'>,
  source: BlockDevice,
) {
  const backing = image?.backing && target && !baseIsKnown ? filesUnder(target, image.backing) : [];
  const data = target && image?.dataFile !== undefined ? dataFileOf(target, image.dataFile) : [];
  const used = [...filesOf(source.description), ...backing];
  for (const filename of [...filesOf(target), ...data]) {
    const other = samePlaceAmong(filename, used);
    if (other === undefined) continue;
    const what = backing.includes(other) ? 'its own backing file' : 'the source itself';
    throw notApart(filename, what, data.includes(filename) ? 'data file' : 'target');
  }
  for (const filename of data) {
    if (samePlaceAmong(filename, filesOf(target)) === undefined) continue;
    throw notApart(filename, 'the new image itself', 'data file');
  }
}

function notApart(filename: string, what: string, role: string): LacunaError {
  const message = `${filename} is ${what}; name another file as the ${role}`;
  return new LacunaError('ERR_COPY_MISMATCH', message, { device: filename });
}

function dataFileOf(target: DeviceDescription, name: string): string[] {
  const [image] = filesOf(target);
  return image === undefined ? [] : [pathOfNamed(name, image)];
}

/** All that a new image will be made of, some way down too. */
function filesUnder(target: DeviceDescription, backing: BackingName): string[] {
  const [image] = filesOf(target);
  return image === undefined ? [] : filesBelow(image, backing);
}

/** Only a file that is made here can be given its space before, or be told how it shall be. */
export function refuseMaking(
  {
    preallocation = 'off',
    image,
    carryBitmaps,
  }: Pick<CopyOptions, 'preallocation' | 'image' | 'carryBitmaps'>,
  target?: DeviceDescription,
): void {
  const name = filesOf(target)[0] ?? 'The target';
  if (carryBitmaps) refuseBitmaps(name);
  if (image !== undefined && imageOf(target) === undefined) refuseImage(name);
  if (preallocation === 'off' && image === undefined) return;
  const what =
    image !== undefined
      ? 'the options of a new image (-o, -B; image) do not apply: leave them out'
      : 'it cannot be preallocated: leave out --preallocation (preallocation)';
  const message = `${name} is written in place, so that ${what}`;
  throw new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: name });
}

export function refuseImage(name: string): never {
  throw new TypeError(
    `${name} is not a qcow2 image, and the options are for one: say the format, or leave them out`,
  );
}

export function refuseBitmaps(name: string): never {
  const message = `Only a new qcow2 image gets the bitmaps of the source, and ${name} is not one: leave them out, or merge them into an image that is there ("lacuna bitmap merge")`;
  throw new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: name });
}
