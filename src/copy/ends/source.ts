/** Opens the source of a copy, and opens it again when its connection was lost. */
import {
  type BlockDevice,
  changeHolder,
  type DeviceDescription,
  holderOf,
  type ImageFormat,
  isBlockDevice,
  parseDescription,
  plainFile,
  sharing,
  takesKey,
} from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import type { CheckedScope, CopyOptions, DeviceSource } from '../options/index.js';
import { openForPlan } from '../plan/index.js';

export interface Source {
  device: BlockDevice;
  /** Opens the device anew; one of the caller's stays as it is. */
  reopen(): Promise<void>;
  /** Closes what was opened here. */
  close(): Promise<void>;
}

/** @param reconnectSeconds how long a lost connection may take to come back; see {@link patient}. */
export async function openSource(
  { source, sourceFormat, forceShare }: Pick<CopyOptions, 'source' | 'sourceFormat' | 'forceShare'>,
  scope: CheckedScope,
  reconnectSeconds: number,
  signal: AbortSignal,
): Promise<Source> {
  if (isBlockDevice(source)) {
    return { device: source, reopen: async () => {}, close: async () => {} };
  }
  const description = describe(source, sourceFormat);
  // A path stays one: what has it opened as raw is its name.
  const named = plainFile(description)
    ? source
    : sharing(patient(source, sourceFormat, reconnectSeconds));
  const open = () => openForPlan(named, scope, { format: sourceFormat, forceShare, signal });
  const opened: Source = {
    device: await open(),
    reopen: async () => {
      opened.device = await reopened(opened.device, open);
    },
    close: () => opened.device.close(),
  };
  return opened;
}

/** Closes a device whose connection is gone, and opens what must be the same one again. */
export async function reopened(
  old: BlockDevice,
  open: () => Promise<BlockDevice>,
): Promise<BlockDevice> {
  await old.close().catch(() => {});
  const device = await open();
  if (device.size === old.size) return device;
  await device.close();
  const message = `${old.name} had ${old.size} bytes before its connection was lost and has ${device.size} now: find out which disk it is`;
  throw new LacunaError('ERR_COPY_MISMATCH', message, { device: old.name });
}

/**
 * Whether a device's connection is made again when it is lost. Then only a flush tells whether the server still has all
 * that it had acknowledged before.
 */
export function reconnects({ description }: BlockDevice): boolean {
  const own = description && holderOf(description);
  return takesKey(own, 'reconnect-delay') && (own['reconnect-delay'] ?? 0) > 0;
}

/** A description whose requests wait so long for a lost NBD connection, unless it says that itself. */
export function patient(
  source: Exclude<DeviceSource, BlockDevice>,
  format: ImageFormat | undefined,
  seconds: number,
): DeviceDescription {
  const description = describe(source, format);
  if (seconds === 0) return description;
  return changeHolder(description, (own) =>
    takesKey(own, 'reconnect-delay') ? { 'reconnect-delay': seconds, ...own } : own,
  );
}

function describe(
  source: Exclude<DeviceSource, BlockDevice>,
  format: ImageFormat | undefined,
): DeviceDescription {
  return typeof source === 'string' ? parseDescription(source, { format }) : source;
}
