/** A machine with disks at rest, and the repository that it is backed up to. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, openSync, readFileSync, readSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { openDevice, resizeQcow2 } from '#dist/block/index.js';
import type { Manifest, Repository } from '#dist/repository/index.js';

export const KiB = 1024;
export const MiB = 1024 * KiB;

/** Makes an empty qcow2 image. */
export function makeImage(path: string, size: number): void {
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', path, `${size}`]);
}

/** Changes a disk, as a program that records into its bitmaps does. */
export async function change(
  path: string,
  work: (device: Awaited<ReturnType<typeof openDevice>>) => Promise<void>,
): Promise<void> {
  await using device = await openDevice(path, { writable: true });
  await work(device);
  await device.flush();
}

/** Makes a disk longer or shorter. */
export async function resize(path: string, size: number): Promise<void> {
  if (path.endsWith('.raw')) execFileSync('truncate', ['-s', `${size}`, path]);
  else if (size < (await sizeOf(path))) {
    execFileSync('qemu-img', ['resize', '-q', '--shrink', path, `${size}`]);
  } else await resizeQcow2(path, size);
}

export async function sizeOf(path: string): Promise<number> {
  await using device = await openDevice(path);
  return device.size;
}

/** What a disk holds, by one hash, read by QEMU. */
export function hashOf(path: string, folder: string, format = formatOf(path)): string {
  const raw = join(folder, 'hashed.raw');
  execFileSync('qemu-img', ['convert', '-f', format, '-O', 'raw', path, raw]);
  return hashOfFile(raw);
}

function formatOf(path: string): string {
  return path.endsWith('.raw') ? 'raw' : 'qcow2';
}

/** The hash of a raw file, as if it ended at a multiple of 512 bytes. */
export function hashOfFile(path: string): string {
  const hash = createHash('sha256');
  const { size } = statSync(path);
  const buffer = Buffer.alloc(MiB);
  const fd = openSync(path, 'r');
  try {
    for (let at = 0; at < size; at += MiB) {
      const read = readSync(fd, buffer, 0, MiB, at);
      hash.update(buffer.subarray(0, read));
    }
  } finally {
    closeSync(fd);
  }
  return hash.update(Buffer.alloc((512 - (size % 512)) % 512)).digest('hex');
}

/** The image of a disk at a point, for other programs. */
export function imageOf(
  repository: Repository,
  { machine, disks }: Manifest,
  name: string,
): string {
  const { file } = disks.find((disk) => disk.name === name)!;
  return join(repository.path, 'machines', machine, 'disks', name, file.name);
}

/** All points of a machine, oldest first. */
export function pointsOf(repository: Repository, machine: string): readonly Manifest[] {
  return repository.points(machine)[0].points;
}

/** Changes one bit of a file. */
export function flipBit(path: string, byte: number, bit: number): void {
  const bytes = readFileSync(path);
  const fd = openSync(path, 'r+');
  try {
    const changed = Buffer.from([bytes[byte] ^ (1 << bit)]);
    // In place, so that it stays the same file.
    writeSync(fd, changed, 0, 1, byte);
  } finally {
    closeSync(fd);
  }
}
