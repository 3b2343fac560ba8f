import { availableParallelism } from 'node:os';
import { describe, expect, it } from 'vitest';
import { Bitmap } from '#dist/bitmap/index.js';
import type { DeviceDescription } from '#dist/block/index.js';
import { chooseThreads } from '#dist/copy/threads/choose-threads.js';
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

const MOST = Math.min(4, availableParallelism());

/** Threads for a copy of so many bytes to a server far away. */
function threads(from: DeviceDescription, bytes: number, options = {}) {
  const data = new Bitmap({ size: bytes, granularity: 65536 });
  data.setAll();
  const devices = { source: device(from), target: device(FAR) };
  return chooseThreads(options, devices, data);
}

describe('chooseThreads', () => {
  it('leaves what is small to the calling thread', async () => {
    expect(await threads(FAR, GIB / 2)).toBe(0);
    expect(await threads(FAR, 2 * GIB)).toBe(MOST);
  });

  it('leaves more to it beside a server on this machine', async () => {
    for (const here of [LOCAL, NEAR, IMAGE]) {
      expect(await threads(here, 2 * GIB)).toBe(0);
      expect(await threads(here, 4 * GIB)).toBe(MOST);
    }
  });

  it('is quick to start threads for a digest', async () => {
    expect(await threads(LOCAL, 2 * GIB, { digest: true })).toBe(MOST);
  });

  it('does as it is told', async () => {
    expect(await threads(LOCAL, GIB, { threads: 3 })).toBe(3);
    expect(await threads(LOCAL, 20 * GIB, { threads: 0 })).toBe(0);
  });
});
