/** The flags of every command that opens one device, and what they mean together. */
import type { Command } from 'commander';
import {
  type BlockDevice,
  changeUnfiltered,
  type DeviceDescription,
  type ImageFormat,
  type OpenOptions,
  openDevice,
  parseDescription,
  takesKey,
} from '../../block/index.js';
import {
  collect,
  Exit,
  FORMAT_FLAG,
  FORMAT_TEXT,
  SHARE_FLAG,
  SHARE_TEXT,
  type Shell,
} from '../shell/index.js';
import { FOLDER_FLAG, FOLDER_TEXT, withFolders } from './backing-folders.js';
import { partOf, type RangeFlags } from './range-flags.js';

export interface SourceFlags extends RangeFlags {
  format?: ImageFormat;
  forceShare?: boolean;
  backingFolder?: string[];
  rescue?: boolean;
}

export function addSourceFlags(command: Command): Command {
  return command
    .option(FORMAT_FLAG, FORMAT_TEXT)
    .option(SHARE_FLAG, SHARE_TEXT)
    .option(FOLDER_FLAG, FOLDER_TEXT, collect);
}

/** For commands that say what is missing. */
export function addRescueFlag(command: Command): Command {
  return command.option(
    '--rescue',
    'read an image that is cut short: what is missing reads as zeroes and is listed; exits with 3',
  );
}

/** A device as the command line names it, and as the flags have it opened. */
export function sourceOf(
  source: string | DeviceDescription,
  flags: SourceFlags,
): string | DeviceDescription {
  const { format, backingFolder } = flags;
  const named = rescued(source, withFolders(source, format, backingFolder), flags);
  return partOf(named, format, flags);
}

function rescued(
  source: string | DeviceDescription,
  named: string | DeviceDescription,
  { format, rescue }: SourceFlags,
): string | DeviceDescription {
  if (!rescue) return named;
  const description = typeof named === 'string' ? parseDescription(named, { format }) : named;
  return changeUnfiltered(description, (own) => {
    if (takesKey(own, 'rescue')) return { ...own, rescue: true };
    const name = typeof source === 'string' ? source : JSON.stringify(source);
    throw new TypeError(
      `--rescue is for qcow2 images, and ${name} is not one: leave it out, or say -f qcow2`,
    );
  });
}

/** Opens a device, as the flags say. */
export function openSource(
  source: string | DeviceDescription,
  flags: SourceFlags,
  options: Pick<OpenOptions, 'writable' | 'contexts' | 'signal'>,
): Promise<BlockDevice> {
  const { format, forceShare } = flags;
  return openDevice(sourceOf(source, flags), { ...options, format, forceShare });
}

/** Sets the exit code that says that something is lost; the warnings of a device say what. */
export function noteMissing({ missing }: Pick<BlockDevice, 'missing'>, shell: Shell): void {
  if (missing.length > 0) shell.exitCode = Exit.leftOut;
}
