import type { Device } from '#dist/block/index.js';

/** The same device, which waits for `before` in front of each read; `count` is 1 at the first. */
export function watchReads(
  device: Device,
  before: (count: number) => void | Promise<void>,
): Device {
  let count = 0;
  return new Proxy(device, {
    get(target, key) {
      const value = Reflect.get(target, key, target);
      if (typeof value !== 'function') return value;
      const method = value.bind(target);
      if (key !== 'read') return method;
      return async (...args: unknown[]) => {
        await before(++count);
        return method(...args);
      };
    },
  });
}
