/** A random life of a machine: what each restore point must hold is known from a hash that QEMU took when it was made. */
import { execFile, execFileSync } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  openSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
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
/** The server is in this process, which must not wait for a client. */
const run = promisify(execFile);

/** What was written over a disk of a point. */
interface Overlay {
  readonly number: number;
  readonly name: string;
  /** Where its image is, if it is kept. */
  readonly folder: string;
  /** A raw file that has what a client must read. */
  readonly model: string;
}

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
  /** It stays over its point until it is removed. */
  #kept: Overlay | undefined;
  #overlays = 0;

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
    const points = pointsOf(this.repository, MACHINE);
    const before = points.map(({ number }) => number);
    const isTagged = (number: number) =>
      points.some((point) => point.number === number && point.tags.includes('kept'));
    const going = before.slice(0, -keep.last).filter((number) => !keep.tags || !isTagged(number));
    if (this.#kept !== undefined && going.includes(this.#kept.number)) {
      await this.#expectHeld(keep, this.#kept);
      if (random.below(4) === 0) return;
      this.log.push('the overlay is removed');
      rmSync(this.#kept.folder, { recursive: true });
      this.#kept = undefined;
    }
    const { machines } = await this.repository.prune({ keep });
    const left = pointsOf(this.repository, MACHINE).map(({ number }) => number);
    expect([...machines[0].kept.map(({ number }) => number)]).toEqual(left);
    expect([...left, ...machines[0].removed].sort((a, b) => a - b)).toEqual(before);
    this.checkKept();
  }

  /** Nothing is pruned while an overlay lies over what would go. */
  async #expectHeld(keep: { last: number; tags?: string[] }, { number }: Overlay) {
    const before = pointsOf(this.repository, MACHINE);
    await expect(this.repository.prune({ keep })).rejects.toMatchObject({
      code: 'ERR_REPOSITORY_LOCKED',
      message: expect.stringContaining(`lies over point ${number}.`),
    });
    expect(pointsOf(this.repository, MACHINE)).toEqual(before);
  }

  /** Whether an overlay that is kept still shows what was written, and the point below, to QEMU alone. */
  checkKept(): void {
    if (this.#kept === undefined) return;
    const { folder: path, name, model } = this.#kept;
    expect(hashOf(join(path, `${name}.qcow2`), folder)).toBe(hashOfFile(model));
  }

  /** Serves a point, and writes to it: a client reads that, nobody prunes meanwhile, and no point changes. */
  async serve(isKept: boolean): Promise<void> {
    const { random, repository } = this;
    if (isKept) this.#kept ??= this.#newOverlay();
    const { number, name, folder: path, model } = (isKept && this.#kept) || this.#newOverlay();
    this.log.push(
      `serve ${name} of point ${number}, over an overlay in ${isKept ? path : 'no place'}`,
    );
    const options = { machine: MACHINE, point: number, disks: [name] };
    const served = await repository.serve({
      ...options,
      overlay: isKept ? { folder: path } : 'discard',
    });
    try {
      const socket = join(path, 'socket');
      rmSync(socket, { force: true });
      await served.server.listen({ type: 'unix', path: socket });
      const uri = served.server.uri(name);
      await this.#writeThrough(uri, model);
      await expect(repository.prune({ keep: { last: 1 } })).rejects.toMatchObject({
        code: 'ERR_REPOSITORY_LOCKED',
      });
      if (random.below(2) === 0) await this.backup();
      const copied = join(folder, 'copied.raw');
      await run('nbdcopy', [uri, copied]);
      expect(hashOfFile(copied)).toBe(hashOfFile(model));
    } finally {
      await served.close();
    }
    this.checkKept();
    await this.check(number);
    await this.check(pointsOf(repository, MACHINE).at(-1)!.number);
  }

  #newOverlay(): Overlay {
    const point = this.random.pick(pointsOf(this.repository, MACHINE));
    const { name } = this.random.pick(point.disks);
    const path = join(folder, `overlay-${++this.#overlays}`);
    mkdirSync(path);
    const model = join(path, 'model.raw');
    const image = imageOf(this.repository, point, name);
    execFileSync('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', image, model]);
    return { number: point.number, name, folder: path, model };
  }

  /** Writes and zeroes by a client of NBD, and the same to a file. */
  async #writeThrough(uri: string, model: string): Promise<void> {
    const { random } = this;
    const sectors = statSync(model).size / 512;
    const fd = openSync(model, 'r+');
    try {
      const commands: string[] = [];
      for (let i = random.below(4); i >= 0; i--) {
        const at = random.below(sectors);
        const offset = at * 512;
        const length = 512 * (1 + random.below(Math.min(600, sectors - at)));
        const value = random.below(3) === 0 ? 0 : 1 + random.below(250);
        const how = value === 0 ? random.pick(['-z', '-z -u', '-P 0']) : `-P ${value}`;
        commands.push(`write ${how} ${offset} ${length}`);
        writeSync(fd, Buffer.alloc(length, value), 0, length, offset);
      }
      this.log.push(...commands.map((command) => `  ${command}`));
      await run('qemu-io', ['-f', 'raw', ...commands.flatMap((one) => ['-c', one]), uri]);
    } finally {
      closeSync(fd);
    }
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
    const chance = this.random.below(22);
    if (chance < 8) return await this.write();
    if (chance < 9) return await this.resize();
    if (chance < 15) return await this.backup();
    if (this.repository.machines().length === 0) return;
    if (chance < 18) return await this.prune();
    if (chance < 19) return await this.restore();
    if (chance < 21) return await this.serve(chance === 20);
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
    for (const isKept of [false, true]) await life.serve(isKept);
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
