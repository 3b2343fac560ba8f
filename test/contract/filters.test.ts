import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe } from 'vitest';
import {
  createQcow2,
  createRawFile,
  type DeviceDescription,
  openDevice,
  type Qcow2Options,
} from '#dist/block/index.js';
import type { DeviceContractOptions } from '#dist/testing/index.js';
import { ODD_SIZE, SIZE, suite } from './suites.js';

type Wrap = (file: DeviceDescription, folder: string) => DeviceDescription;

/** Filters that change nothing of what the contract tests. */
const FILTERS: Record<string, Wrap> = {
  throttle: (file) => ({ driver: 'throttle', 'bytes-per-second': 1e12, file }),
  delay: (file) => ({ driver: 'delay', milliseconds: 0, file }),
  'error that falls to no request': (file) => ({ driver: 'error', rate: 0, file }),
  log: (file, folder) => ({ driver: 'log', 'log-file': join(folder, 'log'), file }),
};

/** A new file in a folder of its own, opened as a description says. */
function made(
  size: number,
  make: (path: string) => Promise<void>,
  describeIt: Wrap,
): DeviceContractOptions {
  const open = async () => {
    const folder = await mkdtemp(join(tmpdir(), 'lacuna-'));
    const filename = join(folder, 'disk');
    await make(filename);
    const description = describeIt({ driver: 'file', filename }, folder);
    const device = await openDevice(description, { writable: true });
    return { device, dispose: () => rm(folder, { recursive: true }) };
  };
  return { size, open };
}

describe('a filter over a file', () => {
  for (const [name, wrap] of Object.entries(FILTERS)) {
    suite(
      name,
      made(ODD_SIZE, (path) => createRawFile(path, ODD_SIZE), wrap),
    );
  }
});

describe('a part of a file', () => {
  suite(
    'from the first byte to the last',
    made(
      SIZE,
      (path) => createRawFile(path, SIZE),
      (file) => ({ driver: 'raw', file }),
    ),
  );
  suite(
    'from within it to within it, at odd bytes',
    made(
      ODD_SIZE,
      (path) => createRawFile(path, ODD_SIZE + 70_000),
      (file) => ({ driver: 'raw', offset: 12_345, size: ODD_SIZE, file }),
    ),
  );
});

describe('a writable qcow2 image over throttle over a file', () => {
  const image = (options: Omit<Qcow2Options, 'size'>) =>
    made(
      SIZE,
      (path) => createQcow2(path, { ...options, size: SIZE }),
      (file, folder) => ({ driver: 'qcow2', file: FILTERS.throttle(file, folder) }),
    );
  suite('as it is made by default', image({}));
  suite('of the smallest clusters', image({ clusterSize: 512, refcountBits: 1 }));
  suite('with subclusters', image({ extendedL2: true }));
  suite('of version 2', image({ version: 2, clusterSize: 4096 }));
  suite('with preallocated metadata', image({ preallocation: 'metadata' }));
});
