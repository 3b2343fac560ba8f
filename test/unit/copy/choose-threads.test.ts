import { describe, expect, it } from 'vitest';
import { Bitmap } from '#dist/bitmap/index.js';
import type { DeviceDescription } from '#dist/block/index.js';
import { chooseThreads } from '#dist/copy/choose-threads.js';
import { fakeDevice } from '../../support/fake-device.js';

const GIB = 2 ** 30;

const LOCAL = { driver: 'nbd', server: { type: 'unix', path: '/run/nbd' }, export: '' } as const;
const FAR = { ...LOCAL, server: { type: 'inet', host: 'backup.example', port: 10809 } } as const;
const NEAR = { ...LOCAL, server: { type: 'inet', host: '127.0.0.1', port: 10809 } } as const;
const IMAGE = { driver: 'qcow2', file: LOCAL } as const;

function device(description: DeviceDescription) {
  const { capabilities } = fakeDevice(1);
  return fakeDevice(1, { description, capabilities: { ...capabilities, multiConnection: true } });
}

/** Threads for a copy of so many bytes to a server far away. */
function threads(from: DeviceDescription, bytes: number, processors: number, options = {}) {
  const data = new Bitmap({ size: bytes, granularity: 65536 });
  data.setAll();
  const devices = { source: device(from), target: device(FAR), data };
  return chooseThreads(options, devices, processors);
}

describe('chooseThreads', () => {
  it('leaves what is small to the calling thread', async () => {
    expect(await threads(FAR, GIB / 2, 8)).toBe(0);
    expect(await threads(FAR, 2 * GIB, 2)).toBe(2);
    expect(await threads(FAR, 2 * GIB, 8)).toBe(4);
  });

  it('leaves half of the processors to a server on this machine', async () => {
    expect(await threads(LOCAL, 20 * GIB, 8)).toBe(4);
    expect(await threads(LOCAL, 20 * GIB, 4)).toBe(2);
    expect(await threads(NEAR, 20 * GIB, 4)).toBe(2);
    expect(await threads(IMAGE, 20 * GIB, 4)).toBe(2);
    expect(await threads(LOCAL, 20 * GIB, 2)).toBe(1);
  });

  it('starts a single thread only for what lasts', async () => {
    expect(await threads(LOCAL, 10 * GIB, 2)).toBe(0);
    expect(await threads(FAR, 10 * GIB, 1)).toBe(0);
    expect(await threads(FAR, 20 * GIB, 1)).toBe(1);
  });

  it('takes all processors for a digest', async () => {
    expect(await threads(LOCAL, 2 * GIB, 2, { digest: true })).toBe(2);
  });

  it('does as it is told', async () => {
    expect(await threads(LOCAL, GIB, 2, { threads: 3 })).toBe(3);
    expect(await threads(LOCAL, 20 * GIB, 2, { threads: 0 })).toBe(0);
  });
});
