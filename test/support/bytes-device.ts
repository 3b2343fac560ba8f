import { Device } from '#dist/block/index.js';

/** A device that holds these bytes and cannot be written. */
export function bytesDevice(bytes: Uint8Array, name = 'disk.qcow2'): Device {
  return new Device({
    name,
    size: bytes.length,
    limits: {
      minimum: 1,
      preferred: 4096,
      maximum: 2 ** 30,
      maximumZero: 2 ** 30,
      zeroAlignment: 1,
      discardAlignment: 1,
    },
    capabilities: { multiConnection: true },
    read: async (offset, target) => {
      target.set(bytes.subarray(offset, offset + target.length));
    },
    close: async () => {},
  });
}
