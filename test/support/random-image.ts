/** Images of any kind, made by us, with the disk that each must show. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createQcow2, type Qcow2Options } from 'lacuna';
import type { Random } from 'lacuna/testing';
import { run } from './peers.js';

/** An image, and what is known of it. */
export interface Subject {
  readonly options: Qcow2Options;
  /** What the disk must hold. */
  model: Buffer;
  snapshots: number;
}

/** Any options that go together. */
function pickOptions(folder: string, random: Random, size: number): Omit<Qcow2Options, 'backing'> {
  const clusterSize = random.pick([512, 1024, 4096, 16_384, 65_536, 65_536, 2 ** 21]);
  if (random.below(4) === 0) return { size, clusterSize, version: 2 };
  const dataFile = random.below(5) === 0 ? join(folder, 'data.raw') : undefined;
  return {
    size,
    clusterSize,
    refcountBits: random.pick([1, 2, 4, 8, 16, 32, 64]),
    extendedL2: clusterSize >= 16_384 && random.below(2) === 0,
    compressionType: random.pick(['deflate', 'zstd']),
    lazyRefcounts: random.below(4) === 0,
    dataFile,
    dataFileRaw: dataFile !== undefined && random.below(2) === 0,
  };
}

/** A new image, disk.qcow2 in a folder, perhaps over a backing file, shorter or longer than it. */
export async function makeRandomImage(folder: string, random: Random): Promise<Subject> {
  const size = 512 * (1 + random.below(random.pick([100, 4000, 8000])));
  const options = pickOptions(folder, random, size);
  const model = Buffer.alloc(size);
  let backing: Qcow2Options['backing'];
  if (!options.dataFileRaw && random.below(3) === 0) {
    const filename = join(folder, 'backing.raw');
    const content = Buffer.from(random.bytes(512 * (1 + random.below(6000))));
    writeFileSync(filename, content);
    content.copy(model);
    backing = { filename, format: 'raw' };
    if (random.below(2) === 0) {
      const converted = join(folder, 'backing.qcow2');
      await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', filename, converted]);
      backing = { filename: converted, format: 'qcow2' };
    }
  }
  const mayReserve = backing === undefined || options.extendedL2 === true;
  const preallocation = mayReserve
    ? random.pick(['off', 'off', 'metadata', 'falloc', 'full'] as const)
    : 'off';
  const all = { ...options, backing, preallocation };
  await createQcow2(join(folder, 'disk.qcow2'), all);
  return { options: all, model, snapshots: 0 };
}

/** A range of bytes, often of whole units. */
export function pickRange(
  random: Random,
  size: number,
  units: readonly number[],
): [number, number] {
  const unit = random.pick(units);
  const offset = Math.floor(random.below(size) / unit) * unit;
  const length = (1 + random.below(random.pick([3, 30, 300_000 / unit + 1]))) * unit;
  return [offset, Math.min(length, size - offset)];
}
