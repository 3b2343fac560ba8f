/** The flags of every command that opens one device, and what they come to. */
import type { Command } from 'commander';
import {
  type Device,
  type DeviceDescription,
  type ImageFormat,
  type OpenOptions,
  openDevice,
} from '../block/index.js';
import { FOLDER_FLAG, FOLDER_TEXT, withFolders } from './backing-folders.js';
import { collect, FORMAT_FLAG, FORMAT_TEXT, SHARE_FLAG, SHARE_TEXT } from './flags.js';

export interface SourceFlags {
  format?: ImageFormat;
  forceShare?: boolean;
  backingFolder?: string[];
}

export function addSourceFlags(command: Command): Command {
  return command
    .option(FORMAT_FLAG, FORMAT_TEXT)
    .option(SHARE_FLAG, SHARE_TEXT)
    .option(FOLDER_FLAG, FOLDER_TEXT, collect);
}

/** Opens a device, as the flags say. */
export function openSource(
  source: string | DeviceDescription,
  { format, forceShare, backingFolder }: SourceFlags,
  options: Pick<OpenOptions, 'writable' | 'contexts' | 'signal'>,
): Promise<Device> {
  return openDevice(withFolders(source, format, backingFolder), { ...options, format, forceShare });
}
