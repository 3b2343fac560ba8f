/** Images made by QEMU's own tools, and what these tools say of them. */
import { execFile } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Device } from '#dist/block/index.js';
import { Context, Status, visitTogether } from '#dist/extent/index.js';
import type { Random } from '../unit/bitmap/random.js';
import { run } from './peers.js';

const KIB = 1024;

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

/** Runs commands of qemu-io on an image. */
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
  throw new Error(`qemu-io: ${failures.join('; ')}`);
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
    const zero = (status & Status.zero) !== 0;
    const present = (status & Status.hole) === 0;
    add(entries, { start, length, depth: present ? depth - 1 : -1, zero });
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
 * much space a file takes changes while it is being written to the disk, and QEMU looks for holes because of it.
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
    if (a.depth !== b.depth || (b.zero && !a.zero) || (a.zero && !b.zero && !isTrue())) {
      throw new Error(
        `from ${start} to ${end}: ${JSON.stringify(a)}, and QEMU ${JSON.stringify(b)}`,
      );
    }
    if (a.start + a.length === end) i++;
    if (b.start + b.length === end) j++;
  }
}
