/** `--offset` and `--length`: a command works on a part of a device. */
import type { Command } from 'commander';
import {
  type BlockDevice,
  type DeviceDescription,
  type ImageFormat,
  parseDescription,
  type Range,
} from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import { parseBytes } from './arguments.js';

export interface RangeFlags {
  offset?: number;
  length?: number;
}

/** @param what is done with the part, as the help says it. */
export function addRangeFlags(command: Command, what: string): Command {
  return command
    .option('--offset <size>', `${what} from this byte on, such as 1M (default: 0)`, parseBytes)
    .option('--length <size>', `${what} this many bytes (default: up to the end)`, parseBytes);
}

/** The part of a device that the flags name; the device where they name none. */
export function partOf(
  source: string | DeviceDescription,
  format: ImageFormat | undefined,
  { offset, length }: RangeFlags,
): string | DeviceDescription {
  if (offset === undefined && length === undefined) return source;
  const file = typeof source === 'string' ? parseDescription(source, { format }) : source;
  return {
    driver: 'raw',
    ...(offset !== undefined && { offset }),
    ...(length !== undefined && { size: length }),
    file,
  };
}

/**
 * The range of a device that the flags name.
 *
 * @throws LacunaError ERR_DEVICE_SHORT where the device ends before it.
 */
export function rangeIn(
  { name, size }: Pick<BlockDevice, 'name' | 'size'>,
  { offset = 0, length = Math.max(0, size - offset) }: RangeFlags,
): Range {
  if (offset + length <= size) return { offset, length };
  const message = `${name} has ${size} bytes, and those from ${offset} to ${offset + length} are wanted: name a range inside it`;
  throw new LacunaError('ERR_DEVICE_SHORT', message, { device: name, offset });
}
