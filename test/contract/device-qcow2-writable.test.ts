import { writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createQcow2, type Qcow2Options } from 'lacuna';
import { describe } from 'vitest';
import { openDevice } from '#dist/block/index.js';
import type { DeviceContractOptions } from '#dist/testing/index.js';
import { SIZE, suite } from './suites.js';

/** No multiple of a cluster; the format ends disks at multiples of 512. */
const ODD_SIZE = SIZE + 1536;

/** A new image in a folder of its own. */
function image(
  size: number,
  options: Omit<Qcow2Options, 'size'>,
  backing?: number,
): DeviceContractOptions {
  const open = async () => {
    const folder = await mkdtemp(join(tmpdir(), 'lacuna-'));
    const filename = join(folder, 'disk.qcow2');
    const below = { filename: join(folder, 'backing.raw'), format: 'raw' };
    if (backing !== undefined) writeFileSync(below.filename, Buffer.alloc(backing, 0xaa));
    await createQcow2(filename, {
      ...options,
      size,
      ...(backing !== undefined && { backing: below }),
    });
    const device = await openDevice(filename, { writable: true });
    return { device, dispose: () => rm(folder, { recursive: true }) };
  };
  return { size, open };
}

describe('a writable qcow2 image', () => {
  suite('as it is made by default', image(ODD_SIZE, {}));
  suite('of the smallest clusters', image(SIZE, { clusterSize: 512, refcountBits: 1 }));
  suite('with subclusters over a backing file', image(ODD_SIZE, { extendedL2: true }, ODD_SIZE));
  suite('of version 2', image(ODD_SIZE, { version: 2, clusterSize: 4096 }));
  suite('of version 2 over a shorter backing file', image(SIZE, { version: 2 }, 300_000));
  suite('with preallocated metadata', image(ODD_SIZE, { preallocation: 'metadata' }));
  suite('with a data file', image(ODD_SIZE, { dataFile: 'data.raw' }));
  suite('with a raw data file', image(SIZE, { dataFile: 'data.raw', dataFileRaw: true }));
});
