/** What is asked of a description, and answered by the kind of its driver. */
import {
  type CommonDescription,
  type DeviceDescription,
  type DriverKind,
  plainFile,
} from '../contract/index.js';
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

/** The description as that of an image; undefined where it is not one. */
export function imageOf(description: Description): ImageDescription | undefined {
  const isImage = description !== undefined && kindOf(description).around !== undefined;
  return isImage ? (description as ImageDescription) : undefined;
}

/** Whether a description may say a key. */
export function takesKey<K extends string>(
  description: Description,
  key: K,
): description is Extract<DeviceDescription, { [Key in K]?: unknown }> {
  return description !== undefined && key in kindOf(description).keys;
}

/** The devices below one that its description says, the one with its own bytes first. */
export function childrenOf(description: DeviceDescription): readonly DeviceDescription[] {
  return kindOf(description).children?.(description) ?? [];
}

/** The paths of all files that a device is made of: its own, and those of the devices below it. */
export function filesOf(description: Description): string[] {
  if (description === undefined) return [];
  const file = plainFile(description);
  return file ? [file.filename] : childrenOf(description).flatMap(filesOf);
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
  return description !== undefined && kindOf(description).remote === true;
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
