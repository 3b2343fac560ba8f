/** What is asked of a description, and answered by the kind of its driver. */
import {
  type Child,
  type CommonDescription,
  type DeviceDescription,
  type DriverKind,
  plainFile,
} from '../contract/index.js';
import type { FileDescription } from '../drivers/file/index.js';
import { KINDS } from '../drivers/index.js';
import type { Qcow2Description } from '../drivers/qcow2/index.js';

type Description = DeviceDescription | undefined;

/** The description of an image: a disk in a format, which other devices hold the bytes of. */
export type ImageDescription = Qcow2Description;

/** The kind of driver that a description is of. */
export function kindOf(
  description: DeviceDescription,
): DriverKind<CommonDescription & { driver: string }> {
  const kind = KINDS[description.driver];
  if (kind !== undefined) return kind;
  throw new TypeError(`there is no driver ${description.driver}`);
}

/** The first device below a description that is not a filter: where what the disk is made of is said. */
export function unfiltered(description: DeviceDescription): DeviceDescription {
  const { isFilter } = kindOf(description);
  return isFilter ? unfiltered(partsOf(description)[0].description) : description;
}

/** A description with what is below its filters changed. */
export function changeUnfiltered(
  description: DeviceDescription,
  change: (unfiltered: DeviceDescription) => DeviceDescription,
): DeviceDescription {
  if (!kindOf(description).isFilter) return change(description);
  const [{ key, description: below }] = partsOf(description);
  return { ...description, [key]: changeUnfiltered(below, change) };
}

/** The first device below a description that is neither a filter nor a part of another one: what answers its requests. */
export function holderOf(description: DeviceDescription): DeviceDescription {
  const below = belowPart(description);
  return below === undefined ? description : holderOf(below.description);
}

/** A description with what answers its requests changed; see {@link holderOf}. */
export function changeHolder(
  description: DeviceDescription,
  change: (holder: DeviceDescription) => DeviceDescription,
): DeviceDescription {
  const below = belowPart(description);
  if (below === undefined) return change(description);
  return { ...description, [below.key]: changeHolder(below.description, change) };
}

/** What lies below a filter, or what something is a part of. */
function belowPart(description: DeviceDescription): Child | undefined {
  const [first] = partsOf(description);
  if (first === undefined) return undefined;
  return kindOf(description).isFilter || first.role === 'part' ? first : undefined;
}

/** The description of the image that a disk is, below its filters; undefined where the disk is not in a format. */
export function imageOf(description: Description): ImageDescription | undefined {
  if (description === undefined) return undefined;
  const own = unfiltered(description);
  return kindOf(own).around === undefined ? undefined : (own as ImageDescription);
}

/** The file that holds the bytes of a disk as they are, below its filters; undefined where it is anything else. */
export function fileOf(description: Description): FileDescription | undefined {
  return description === undefined ? undefined : plainFile(unfiltered(description));
}

/** Whether a description may say a key. */
export function takesKey<K extends string>(
  description: Description,
  key: K,
): description is Extract<DeviceDescription, { [Key in K]?: unknown }> {
  return description !== undefined && key in kindOf(description).keys;
}

/** The devices below one that its description says, with what they are to it; the one with its own bytes first. */
export function partsOf(description: DeviceDescription): readonly Child[] {
  return kindOf(description).children?.(description) ?? [];
}

/** The devices below one that its description says, the one with its own bytes first. */
function childrenOf(description: DeviceDescription): readonly DeviceDescription[] {
  return partsOf(description).map((part) => part.description);
}

/** A description with itself, and all below it that is written with it, changed: from the top down. */
export function changeOwn(
  description: DeviceDescription,
  change: (part: DeviceDescription) => DeviceDescription,
): DeviceDescription {
  return changeParts(description, change, ({ role }) => role !== 'below');
}

/** The description of a device whose openings, made from it one after another or side by side, all share what filters count. */
export function sharing(description: DeviceDescription): DeviceDescription {
  return changeParts(
    description,
    (part) => (kindOf(part).sharing?.(part) as DeviceDescription | undefined) ?? part,
    () => true,
  );
}

function changeParts(
  description: DeviceDescription,
  change: (part: DeviceDescription) => DeviceDescription,
  isMeant: (child: Child) => boolean,
): DeviceDescription {
  const changed = change(description);
  const parts = partsOf(changed)
    .filter(isMeant)
    .map((part) => [part.key, changeParts(part.description, change, isMeant)]);
  return parts.length === 0 ? changed : { ...changed, ...Object.fromEntries(parts) };
}

/** The paths of all files that a device is made of: its own, and those of the devices below it. */
export function filesOf(description: Description): string[] {
  if (description === undefined) return [];
  const file = plainFile(description);
  return file ? [file.filename] : childrenOf(description).flatMap(filesOf);
}

/** A file that is written beside a disk, with the key of the description that names it. */
interface SideFile {
  readonly key: string;
  readonly path: string;
}

/** All files that are written beside a disk, by whatever lies above its files. */
export function sideFilesOf(description: Description): SideFile[] {
  if (description === undefined) return [];
  const keys = kindOf(description).sideFiles ?? [];
  const said = Object.entries(description).filter(([key]) => keys.includes(key));
  const own = said.map(([key, path]) => ({ key, path: String(path) }));
  return [...own, ...childrenOf(description).flatMap(sideFilesOf)];
}

/** Whether all of a device's bytes lie in files of this machine. */
export function isMadeOfFiles(description: Description): boolean {
  if (description === undefined) return false;
  const children = childrenOf(description);
  return (
    plainFile(description) !== undefined || (children.length > 0 && children.every(isMadeOfFiles))
  );
}

/** Whether requests to a device itself go to another program. */
export function isRemote(description: Description): boolean {
  return description !== undefined && kindOf(holderOf(description)).remote === true;
}

/** Whether a program on this machine answers for the bytes of a device, as it is or inside an image. */
export function isServedHere(description: Description): boolean {
  if (description === undefined) return false;
  const { isServedHere: isServed } = kindOf(description);
  return isServed ? isServed(description) : isServedHere(childrenOf(description)[0]);
}

/** What tells a device that is not a file from others in a later run too; undefined where nothing does. */
export function placeOf(description: DeviceDescription): string | undefined {
  return kindOf(description).place?.(description);
}

/** Whether two descriptions are known to lead to one device under whatever names. */
export async function isSameDevice(a: DeviceDescription, b: DeviceDescription): Promise<boolean> {
  return a.driver === b.driver && ((await kindOf(a).isSame?.(a, b)) ?? false);
}

/** A description of a device that has so many bytes, where it leaves its size open. */
export function sizedFor(description: DeviceDescription, size: number): DeviceDescription {
  return changeUnfiltered(
    description,
    (own) => (kindOf(own).sized?.(own, size) as DeviceDescription | undefined) ?? own,
  );
}
