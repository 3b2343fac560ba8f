import { LacunaError } from '../../errors/index.js';
import type { BlockDevice, DeviceDescription } from '../contract/index.js';
import { type OpenOptions, openDevice } from './open.js';

/** A device that the caller has open, for a worker to open too. */
export interface SharedDevice {
  description: DeviceDescription;
  /** Bytes that it had when the copy was planned. */
  size: number;
}

/** Whether workers may open the device anew, and see the same bytes each. */
export function isShareable({ description, capabilities }: BlockDevice): boolean {
  return description !== undefined && capabilities.multiConnection;
}

/** What a worker needs to open a device. */
export function shareDevice({ name, description, size }: BlockDevice): SharedDevice {
  if (description === undefined) throw new TypeError(`${name} cannot be opened twice`);
  return { description, size };
}

/** Opens a device in a worker, if it is still the one that it was. */
export async function openShared(shared: SharedDevice, options: OpenOptions): Promise<BlockDevice> {
  const device = await openDevice(shared.description, options);
  if (device.size === shared.size) return device;
  await device.close();
  const sizes = `it had ${shared.size} bytes when the work began and has ${device.size} now`;
  const message = `${device.name} changed its size: ${sizes}; try it again while nobody resizes it`;
  throw new LacunaError('ERR_DEVICE_SHORT', message, { device: device.name });
}
