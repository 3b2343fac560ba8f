import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createQcow2, type Qcow2Options } from 'lacuna';

/** Content of a sector, by which it can be told who wrote it: 0 is nobody. */
export function sectorOf(writer: number, sector: number): Buffer {
  const bytes = Buffer.alloc(512);
  if (writer === 0) return bytes;
  for (let at = 0; at < 512; at += 8) {
    bytes.writeUInt32BE(writer, at);
    bytes.writeUInt32BE(sector, at + 4);
  }
  return bytes;
}

/**
 * Who wrote a sector on a disk, undefined where it is none of `sectorOf`. Makes no copy: tests look at millions of them.
 */
export function writerOf(disk: Buffer, sector: number): number | undefined {
  const at = sector * 512;
  const writer = disk.readUInt32BE(at);
  const isOurs = disk.readUInt32BE(at + 4) === (writer === 0 ? 0 : sector);
  // All eights are the same where each is that behind it.
  const isEven = disk.compare(disk, at + 8, at + 512, at, at + 504) === 0;
  return isOurs && isEven ? writer : undefined;
}

/** Sectors in a row, all of one writer. */
export function sectorsOf(writer: number, first: number, count: number): Buffer {
  return Buffer.concat(Array.from({ length: count }, (_, i) => sectorOf(writer, first + i)));
}

export const INITIAL_WRITER = 1;
export const BACKING_WRITER = 2;

/** A kind of image, with content or without. */
export interface ImageKind {
  readonly options: Omit<Qcow2Options, 'size'>;
  /** Sectors of a backing file, if there is one. */
  readonly backing?: number;
  /** What it holds, as written by qemu-io before; with a snapshot of it, or compressed. */
  readonly content?: 'plain' | 'compressed' | 'snapshot';
}

/** An image in a folder: its bytes, and who wrote each sector of its disk. */
export interface MadeImage {
  readonly path: string;
  readonly bytes: Buffer;
  readonly backingPath?: string;
  readonly backing?: Uint8Array;
  readonly writers: number[];
}

/** Makes an image of a kind with a disk of so many sectors, filled by QEMU where it has content. */
export async function makeImage(
  folder: string,
  kind: ImageKind,
  sectors: number,
): Promise<MadeImage> {
  const path = join(folder, 'disk.qcow2');
  const writers = new Array<number>(sectors).fill(0);
  let backingPath: string | undefined;
  let backing: Buffer | undefined;
  if (kind.backing !== undefined) {
    backingPath = join(folder, 'backing.raw');
    backing = sectorsOf(BACKING_WRITER, 0, kind.backing);
    writeFileSync(backingPath, backing);
    writers.fill(BACKING_WRITER, 0, Math.min(sectors, kind.backing));
  }
  await createQcow2(path, {
    ...kind.options,
    size: sectors * 512,
    ...(backingPath !== undefined && { backing: { filename: backingPath, format: 'raw' } }),
  });
  if (kind.content !== undefined) {
    // Every second stretch of 40 sectors.
    for (let first = 0; first < sectors; first += 80) {
      const count = Math.min(40, sectors - first);
      writeFileSync(join(folder, 'piece'), sectorsOf(INITIAL_WRITER, first, count));
      fill(folder, path, kind.content === 'compressed', first, count, kind);
      writers.fill(INITIAL_WRITER, first, first + count);
    }
    if (kind.content === 'snapshot') execFileSync('qemu-img', ['snapshot', '-c', 'before', path]);
  }
  return { path, bytes: readFileSync(path), backingPath, backing, writers };
}

function fill(
  folder: string,
  path: string,
  compressed: boolean,
  first: number,
  count: number,
  kind: ImageKind,
) {
  const { clusterSize = 65_536 } = kind.options;
  const [offset, length] = [first * 512, count * 512];
  const isAligned = offset % clusterSize === 0 && length % clusterSize === 0;
  const flags = compressed && isAligned ? ['-c'] : [];
  const command = ['write', ...flags, '-s', join(folder, 'piece'), `${offset}`, `${length}`];
  execFileSync('qemu-io', ['-f', 'qcow2', '-c', command.join(' '), path], { stdio: 'pipe' });
}
