/** A random life of a machine: what each restore point must hold is known from a hash that QEMU took when it was made. */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Repository } from 'lacuna/repository';
import { expect, test } from 'vitest';
import { Random } from '#dist/testing/index.js';
import { firstSeed, stepsOr } from '../support/long-run.js';
import {
  change,
  hashOf,
  hashOfFile,
  imageOf,
  KiB,
  MiB,
  makeImage,
  pointsOf,
  resize,
  sizeOf,
} from '../support/repository.js';
import { temporaryFolder } from '../support/temporary-folder.js';

const STEPS = stepsOr(60);
const LARGEST = 40 * MiB;
const folder = temporaryFolder();
const MACHINE = 'life';
const DISKS = ['vda.qcow2', 'vdb.raw'] as const;

class Life {
  readonly random = new Random(firstSeed());
  readonly repository = Repository.openWith(join(folder, 'repository'), {
    create: true,
    // So that prune leaves some images, and merges others.
    smallImage: 0,
  });
  /** By the id of a point, the hash of each disk. */
  readonly #hashes = new Map<string, Record<string, string>>();
  readonly log: string[] = [];

  path(disk: string): string {
    return join(folder, disk);
  }

  async write(): Promise<void> {
    const { random } = this;
    const disk = random.pick(DISKS);
    await change(this.path(disk), async (device) => {
      for (let i = random.below(4); i >= 0; i--) {
        const offset = random.below(device.size);
        const length = Math.min(device.size - offset, 1 + random.below(300 * KiB));
        const kind = random.below(6);
        this.log.push(`${disk} ${kind} ${offset}+${length}`);
        if (kind < 3) await device.write(offset, Buffer.alloc(length, 1 + random.below(250)));
        else if (kind === 3) await device.write(offset, new Uint8Array(length));
        else if (kind === 4) await device.zero(offset, length, { unmap: random.below(2) === 0 });
        else await device.discard(offset, length);
      }
    });
  }

  async resize(): Promise<void> {
    const { random } = this;
    const disk = random.pick(DISKS);
    const unit = disk.endsWith('.raw') ? 1 : 512;
    const size = random.below(LARGEST / unit) * unit + unit;
    this.log.push(`${disk} resized to ${size}`);
    await resize(this.path(disk), size);
  }

  async backup(): Promise<void> {
    const { random } = this;
    const options = {
      full: random.below(8) === 0,
      bitmaps: random.below(4) !== 0,
      longestChain: 2 + random.below(8),
      ...(random.below(3) === 0 && { compress: random.pick(['deflate', 'zstd'] as const) }),
      ...(random.below(6) === 0 && { tags: ['kept'] }),
    };
    this.log.push(`backup ${JSON.stringify(options)}`);
    const disks = DISKS.map((disk) => ({ name: disk.split('.')[0], source: this.path(disk) }));
    const { point, disks: told } = await this.repository.backup({
      machine: MACHINE,
      disks,
      ...options,
    });
    this.log.push(...told.map(({ name, mode, reason }) => `  ${name}: ${mode}, ${reason}`));
    const hashes = DISKS.map((disk) => [disk.split('.')[0], hashOf(this.path(disk), folder)]);
    this.#hashes.set(point.id, Object.fromEntries(hashes));
  }

  async prune(): Promise<void> {
    const { random } = this;
    const keep = { last: 1 + random.below(5), ...(random.below(2) === 0 && { tags: ['kept'] }) };
    this.log.push(`prune ${JSON.stringify(keep)}`);
    const before = pointsOf(this.repository, MACHINE).map(({ number }) => number);
    const { machines } = await this.repository.prune({ keep });
    const left = pointsOf(this.repository, MACHINE).map(({ number }) => number);
    expect([...machines[0].kept.map(({ number }) => number)]).toEqual(left);
    expect([...left, ...machines[0].removed].sort((a, b) => a - b)).toEqual(before);
  }

  async restore(): Promise<void> {
    const point = this.random.pick(pointsOf(this.repository, MACHINE));
    if (point !== undefined) await this.check(point.number);
  }

  /** Whether a point is what its disks were, by our restore and by QEMU alone. */
  async check(number: number): Promise<void> {
    const target = (name: string) => join(folder, `restored-${name}.raw`);
    const point = pointsOf(this.repository, MACHINE).find((one) => one.number === number)!;
    const disks = point.disks.map(({ name }) => ({ name, target: target(name) }));
    await this.repository.restore({ machine: MACHINE, point: number, disks });
    for (const { name } of disks) {
      const wanted = this.#hashes.get(point.id)![name];
      expect({ number, name, hash: hashOfFile(target(name)) }).toEqual({
        number,
        name,
        hash: wanted,
      });
      expect(hashOf(imageOf(this.repository, point, name), folder)).toBe(wanted);
    }
  }

  async verify(): Promise<void> {
    const { problems } = await this.repository.verify();
    expect(problems).toEqual([]);
  }

  async step(): Promise<void> {
    const chance = this.random.below(20);
    if (chance < 8) return await this.write();
    if (chance < 9) return await this.resize();
    if (chance < 15) return await this.backup();
    if (this.repository.machines().length === 0) return;
    if (chance < 17) return await this.prune();
    if (chance < 19) return await this.restore();
    await this.verify();
  }
}

test('every point of a random life is what the disks were, whatever was pruned around it', async () => {
  const life = new Life();
  makeImage(life.path(DISKS[0]), 3 * MiB);
  writeFileSync(life.path(DISKS[1]), Buffer.alloc(MiB + 77, 5));
  let [longest, restored] = [0, 0];
  try {
    for (let step = 0; step < STEPS; step++) {
      await life.step();
      expect(await sizeOf(life.path(DISKS[0]))).toBeGreaterThan(0);
    }
    await life.backup();
    for (const { number } of pointsOf(life.repository, MACHINE)) {
      await life.check(number);
      restored++;
    }
    longest = Math.max(...pointsOf(life.repository, MACHINE).map(({ number }) => number));
    await life.verify();
  } catch (error) {
    console.log(life.log.join('\n'));
    throw error;
  }
  console.log(`${STEPS} steps, ${longest} backups, ${restored} points at the end`);
});
