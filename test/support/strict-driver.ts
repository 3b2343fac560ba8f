import assert from 'node:assert/strict';
import type { Driver, Limits, WriteOptions, ZeroOptions } from '#dist/block/index.js';

/** What a strict driver was asked to do, in order. */
export interface Seen {
  readonly kind: 'read' | 'write' | 'zero' | 'discard';
  readonly offset: number;
  readonly length: number;
}

/**
 * A driver with limits of its own that trusts nobody: it asserts everything that the contract of drivers promises
 * them. Each request waits a moment, so that requests really run side by side.
 */
export function strictDriver(driver: Driver, changes: Partial<Limits>, seen: Seen[] = []): Driver {
  const limits = { ...driver.limits, ...changes };
  let closed = false;
  const check = async (kind: Seen['kind'], offset: number, length: number, maximum: number) => {
    const what = `${kind} of ${length} bytes at ${offset}`;
    const end = offset + length;
    seen.push({ kind, offset, length });
    assert(!closed, `${what} after close`);
    assert(length > 0 && length <= maximum, `${what}: length`);
    assert(offset >= 0 && end <= driver.size, `${what}: outside`);
    assert.equal(offset % limits.minimum, 0, `${what}: offset is not aligned`);
    assert(end % limits.minimum === 0 || end === driver.size, `${what}: end is not aligned`);
    await new Promise(setImmediate);
  };
  return {
    name: driver.name,
    size: driver.size,
    limits,
    capabilities: driver.capabilities,
    async read(offset, target) {
      await check('read', offset, target.byteLength, limits.maximum);
      await driver.read(offset, target);
    },
    async write(offset: number, source: Uint8Array, options: WriteOptions) {
      await check('write', offset, source.byteLength, limits.maximum);
      await driver.write!(offset, source, options);
    },
    async zero(offset: number, length: number, options: ZeroOptions) {
      await check('zero', offset, length, limits.maximumZero);
      await driver.zero!(offset, length, options);
    },
    async discard(offset, length) {
      await check('discard', offset, length, limits.maximumZero);
      await driver.discard!(offset, length);
    },
    flush: async () => {},
    extents: (offset, length, contexts) => driver.extents!(offset, length, contexts),
    async close() {
      closed = true;
      await driver.close();
    },
  };
}
