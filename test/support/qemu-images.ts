/** Images made by QEMU's own tools, and what these tools say of them. */
import { execFile } from 'node:child_process';
import { copyFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Device } from '#dist/block/index.js';
import { Context, Status, visitTogether } from '#dist/extent/index.js';
import { Random } from '../unit/bitmap/random.js';
import { run } from './peers.js';

const KIB = 1024;

/** Images that QEMU may spoil in a row before that is our fault. */
const ATTEMPTS = 10;

/** An image that QEMU's own tools spoilt or refused: nothing to test ours with. */
export class SpoiltImage extends Error {}

/**
 * An image made by QEMU that QEMU itself finds in order. QEMU 7.2 spoils some: compressed clusters over postponed
 * refcounts, or in images with subclusters, and snapshots after those. Each attempt has a seed of its own, taken from
 * `random`, so a run with the same seed makes the same ones.
 *
 * @param make makes an image by the functions of this module, and returns its path
 * @param judge throws {@link SpoiltImage} where the image is not to be used
 */
export async function soundImage(
  random: Random,
  make: (random: Random) => Promise<string>,
  judge: (path: string) => Promise<void> = expectSound,
): Promise<string> {
  const spoilt: string[] = [];
  while (spoilt.length < ATTEMPTS) {
    const seed = random.between(1, 2 ** 31 - 1);
    try {
      const path = await make(new Random(seed));
      await judge(path);
      return path;
    } catch (cause) {
      if (!(cause instanceof SpoiltImage)) throw cause;
      spoilt.push(`QEMU spoilt the image of sub-seed ${seed}: ${cause.message}`);
      console.log(`${spoilt.at(-1)}; the next one is made`);
    }
  }
  throw new Error(`${ATTEMPTS} images in a row are of no use:\n${spoilt.join('\n')}`);
}

/** Throws {@link SpoiltImage} where QEMU finds an error or a leak in an image, or cannot read it or its snapshots. */
export async function expectSound(path: string, snapshots: readonly string[] = []): Promise<void> {
  await qemuImg(['check', '-q', '-f', 'qcow2', path]);
  await expectReadable(path, snapshots);
}

/** Throws {@link SpoiltImage} where QEMU cannot read an image, or one of its snapshots. */
async function expectReadable(path: string, snapshots: readonly string[]): Promise<void> {
  const told = await qemuImg(['info', '-f', 'qcow2', '--output=json', path]);
  const { 'virtual-size': size } = JSON.parse(told) as { 'virtual-size': number };
  const nowhere = ['-n', '--target-image-opts', `driver=null-co,size=${size}`];
  for (const options of [[], ...snapshots.map((name) => ['-l', name])]) {
    await qemuImg(['convert', '-f', 'qcow2', ...options, path, ...nowhere]);
  }
}

/**
 * The same for an image that QEMU was killed over, whose refcounts are behind: QEMU must be able to read it, and a
 * copy of it must be in order and show the same once QEMU has repaired it.
 */
export async function expectRepairable(
  path: string,
  snapshots: readonly string[] = [],
): Promise<void> {
  if ((readFileSync(path).readBigUInt64BE(72) & 2n) !== 0n) {
    throw new SpoiltImage(`${path}: QEMU marked it as corrupt`);
  }
  await expectReadable(path, snapshots);
  const repaired = `${path}.repaired`;
  copyFileSync(path, repaired);
  try {
    await qemuImg(['check', '-q', '-f', 'qcow2', '-r', 'all', repaired]);
    await expectSound(repaired, snapshots);
    await qemuImg(['compare', '-q', '-f', 'qcow2', '-F', 'qcow2', path, repaired]);
  } finally {
    rmSync(repaired);
  }
}

/** Runs qemu-img on an image of QEMU's own; throws {@link SpoiltImage} where that refuses or fails. */
export async function qemuImg(args: readonly string[]): Promise<string> {
  return run('qemu-img', args).catch((cause) => {
    const { code, stdout = '', stderr = '' } = cause as { code?: unknown } & Partial<Output>;
    // Not installed, or something else that is not about the image.
    if (typeof code !== 'number') throw cause;
    const said = `${stdout}${stderr}`.trim();
    throw new SpoiltImage(`qemu-img ${args.join(' ')}: exit code ${code}: ${said}`, { cause });
  });
}

interface Output {
  readonly stdout: string;
  readonly stderr: string;
}

/** `qemu-img create`: options as `-o` takes them. */
export async function createImage(
  path: string,
  size: number | string,
  options: readonly string[] = [],
  more: readonly string[] = [],
): Promise<void> {
  const given = options.flatMap((option) => ['-o', option]);
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...given, ...more, path, String(size)]);
}

/** Runs commands of qemu-io on an image; throws {@link SpoiltImage} where they fail in a way that QEMU should not. */
export async function qemuIo(path: string, commands: readonly string[]): Promise<void> {
  if (commands.length === 0) return;
  const options = ['-f', 'qcow2', '-d', 'unmap'];
  const args = [...options, ...commands.flatMap((command) => ['-c', command]), path];
  const output = await promisify(execFile)('qemu-io', args).then(
    ({ stdout, stderr }) => stdout + stderr,
    // It goes on after a failure, and fails at the end.
    ({ stdout, stderr }) => stdout + stderr,
  );
  const failures: string[] = output.match(/^.*(?:failed|error|unsupported|not ).*$/gim) ?? [];
  const compressed = commands.filter((command) => command.startsWith('write -c')).length;
  // QEMU does not compress into a cluster that is allocated already.
  const expected = failures.filter((failure) => failure === 'write failed: Input/output error');
  if (failures.length === expected.length && failures.length <= compressed) return;
  // From where QEMU finds the image corrupt, it says "No medium found" to all that follows.
  throw new SpoiltImage(`qemu-io ${path}: ${[...new Set(failures)].join('; ')}`);
}

/** What random commands may be about. */
export interface Workload {
  /** Bytes of the disk. */
  readonly size: number;
  readonly clusterSize: number;
  /** Commands. */
  readonly count: number;
  /** Write compressed clusters as well. */
  readonly compressed?: boolean;
  /** Write zeroes as flags, which version 2 does not have. */
  readonly zeroes?: boolean;
  /** A file of noise, which compression makes little shorter. */
  readonly noise: string;
}

/** Random writes, zeroes, discards and compressed writes, some whole clusters and some not. */
export function randomCommands(random: Random, work: Workload): string[] {
  const kinds = ['write', 'write', 'noise', 'discard'];
  if (work.zeroes ?? true) kinds.push('zero', 'unmap');
  if (work.compressed ?? false) kinds.push('compressed', 'compressed');
  return Array.from({ length: work.count }, () => randomCommand(random, random.pick(kinds), work));
}

function randomCommand(random: Random, kind: string, work: Workload): string {
  const { size, clusterSize, noise } = work;
  const whole = kind === 'compressed' || random.between(0, 1) === 0;
  const unit = whole ? clusterSize : 512;
  const offset = random.between(0, Math.floor((size - 1) / unit)) * unit;
  const most = Math.max(1, Math.floor(Math.max(4 * clusterSize, 32 * KIB) / unit));
  const wanted = kind === 'compressed' ? clusterSize : random.between(1, most) * unit;
  const length = Math.min(wanted, size - offset);
  const place = `${offset} ${length}`;
  const pattern = random.between(1, 255);
  switch (kind) {
    case 'noise':
      return `write -s ${noise} ${place}`;
    case 'discard':
      return `discard ${place}`;
    case 'zero':
      return `write -z ${place}`;
    case 'unmap':
      return `write -z -u ${place}`;
    case 'compressed':
      return random.between(0, 1) === 0
        ? `write -c -P ${pattern} ${place}`
        : `write -c -s ${noise} ${place}`;
    default:
      return `write -P ${pattern} ${place}`;
  }
}

/** Writes a file of noise for {@link Workload}: of every two bytes one has two bits only. */
export function makeNoise(folder: string, random: Random): string {
  const path = join(folder, 'noise.bin');
  writeFileSync(
    path,
    Uint8Array.from({ length: 65_521 }, (_, i) => random.between(0, i % 2 ? 255 : 3)),
  );
  return path;
}

/** One range as `qemu-img map` tells it: depth is -1 where nobody has it. */
export interface MapEntry {
  start: number;
  length: number;
  depth: number;
  zero: boolean;
}

/** What `qemu-img map` says. */
export async function qemuMap(path: string): Promise<MapEntry[]> {
  const told = await run('qemu-img', ['map', '-f', 'qcow2', '--output=json', path]);
  return merge(JSON.parse(told) as QemuMapEntry[]);
}

/** What `qemu-img convert` reads; `options` may name a snapshot. */
export async function qemuBytes(path: string, options: readonly string[] = []): Promise<Buffer> {
  const raw = `${path}.raw`;
  await run('qemu-img', ['convert', '-f', 'qcow2', ...options, '-O', 'raw', path, raw]);
  const bytes = readFileSync(raw);
  rmSync(raw);
  return bytes;
}

interface QemuMapEntry extends MapEntry {
  present: boolean;
  data: boolean;
}

function merge(entries: readonly QemuMapEntry[]): MapEntry[] {
  const merged: MapEntry[] = [];
  for (const { start, length, present, zero, data, depth } of entries) {
    // What lies in a hole of the file is told as data that is zero.
    add(merged, { start, length, depth: present ? depth : -1, zero: zero && !data });
  }
  return merged;
}

function add(entries: MapEntry[], next: MapEntry): void {
  const last = entries.at(-1);
  const same = (['depth', 'zero'] as const).every((key) => last?.[key] === next[key]);
  if (last !== undefined && same) last.length += next.length;
  else entries.push({ ...next });
}

/** All that a device holds. */
export async function readWhole(device: Device): Promise<Buffer> {
  const bytes = Buffer.alloc(device.size, 0xa5);
  await device.read(0, bytes);
  return bytes;
}

/** The map of a device, as `qemu-img map` would tell it. */
export async function mapOf(device: Device): Promise<MapEntry[]> {
  const contexts = [Context.allocation, Context.depth];
  const lists = await device.extents(0, device.size, { contexts });
  const entries: MapEntry[] = [];
  visitTogether(lists, device.size, (start, length, [status, depth]) => {
    add(entries, { start, length, depth: depth - 1, zero: (status & Status.zero) !== 0 });
  });
  return entries;
}

/** The same for parts that begin and end anywhere, inside clusters as well. */
async function expectParts(device: Device, bytes: Buffer): Promise<void> {
  for (let i = 0; i < 200; i++) {
    const offset = Math.floor((bytes.length * i) / 200);
    const part = Buffer.alloc(Math.min(1 + ((i * 7919) % 3001), bytes.length - offset), 0xa5);
    await device.read(offset, part);
    if (part.equals(bytes.subarray(offset, offset + part.length))) continue;
    throw new Error(`${device.name}: ${part.length} bytes at ${offset} differ from qemu-img's`);
  }
}

/** Throws unless a device holds these bytes, and names the first that differs. */
export async function expectBytes(device: Device, bytes: Buffer): Promise<void> {
  const ours = await readWhole(device);
  if (ours.length !== bytes.length) {
    throw new Error(`${device.name} has ${ours.length} bytes, and qemu-img reads ${bytes.length}`);
  }
  if (ours.equals(bytes)) return expectParts(device, bytes);
  const at = ours.findIndex((byte, i) => byte !== bytes[i]);
  throw new Error(`${device.name}: byte ${at} is ${ours[at]}, and qemu-img reads ${bytes[at]}`);
}

/**
 * Throws unless two maps tell the same. Where clusters lie in holes of their file, both may call them zero or not: how
 * much space a file takes changes while it is being written to the disk, and QEMU looks for holes because of it. Behind the
 * end of a shorter backing file, `qemu-img map` says that nobody has it, and `qemu:allocation-depth` of QEMU and us that the
 * backing file has.
 */
export function expectSameMap(
  ours: readonly MapEntry[],
  theirs: readonly MapEntry[],
  bytes: Buffer,
) {
  for (let i = 0, j = 0; i < ours.length && j < theirs.length; ) {
    const [a, b] = [ours[i], theirs[j]];
    const start = Math.max(a.start, b.start);
    const end = Math.min(a.start + a.length, b.start + b.length);
    const isTrue = () => bytes.subarray(start, end).every((byte) => byte === 0);
    const isBehind = a.zero && b.zero && a.depth > 0 && b.depth === -1;
    if (
      (a.depth !== b.depth && !isBehind) ||
      (b.zero && !a.zero) ||
      (a.zero && !b.zero && !isTrue())
    ) {
      throw new Error(
        `from ${start} to ${end}: ${JSON.stringify(a)}, and QEMU ${JSON.stringify(b)}`,
      );
    }
    if (a.start + a.length === end) i++;
    if (b.start + b.length === end) j++;
  }
}
