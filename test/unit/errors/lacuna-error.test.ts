import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { fromWire, LacunaError, toWire } from '#dist/errors/index.js';

const CONTEXT = { device: 'disk.raw', offset: 512, length: 4096, errno: 'EIO', retryable: true };

describe('an error', () => {
  it('has the fields that are known, and no others', () => {
    const bare = new LacunaError('ERR_DEVICE_CLOSED', 'the device is closed');
    expect(Object.keys(bare).sort()).toEqual(['code', 'name', 'retryable']);
    expect(inspect(bare)).not.toContain('undefined');
    const full = new LacunaError('ERR_DEVICE_IO', 'no luck', CONTEXT);
    expect(full).toMatchObject(CONTEXT);
    expect(Object.keys(full)).toHaveLength(7);
  });
});

describe('an error on its way out of a thread', () => {
  it.each([
    ['few', {}],
    ['all', CONTEXT],
  ])('keeps its class and its fields, %s of them', (_many, context) => {
    const cause = new TypeError('a reason');
    const error = new LacunaError('ERR_DEVICE_IO', 'no luck', { ...context, cause });
    const wire = structuredClone(toWire(error));
    expect(Object.values(wire)).not.toContain(undefined);
    const revived = fromWire(wire);
    expect(revived).toBeInstanceOf(LacunaError);
    expect(revived).toMatchObject({ name: 'LacunaError', message: 'no luck', stack: error.stack });
    expect({ ...revived }).toEqual({ ...error });
    expect(Object.keys(revived).sort()).toEqual(Object.keys(error).sort());
    expect(revived.cause).toBeInstanceOf(TypeError);
  });
});
