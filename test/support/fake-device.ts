import { Device, type Driver, MemoryDriver } from '#dist/block/index.js';

/** A memory device whose driver methods may be replaced, to play a device that misbehaves. */
export function fakeDevice(size: number, change: Partial<Driver> = {}): Device {
  const memory = new MemoryDriver({ size });
  const driver: Driver = new Proxy(memory, {
    get(target, key) {
      const value = Reflect.get(key in change ? change : target, key);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  return new Device(driver);
}

/** Bytes that differ from place to place and are never zero. */
export function pattern(length: number, seed = 1): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => ((i * 31 + seed * 17) % 255) + 1);
}

/** The whole content of a small device. */
export async function contentOf(device: Device): Promise<Uint8Array> {
  const bytes = new Uint8Array(device.size);
  await device.read(0, bytes);
  return bytes;
}

/**
 * The first byte at which two devices differ; -1 if they hold the same. For large contents, which a matcher
 * would take minutes to describe.
 */
export async function firstDifference(a: Device, b: Device): Promise<number> {
  const [left, right] = [await contentOf(a), await contentOf(b)];
  if (Buffer.compare(left, right) === 0) return -1;
  return left.findIndex((byte, i) => byte !== right[i]);
}
