import { createHash } from 'node:crypto';
import type { FileOperations } from '../../files/index.js';
import { Bitmap } from '../bits/index.js';
import type { DirtyBitmaps } from '../named/index.js';
import { writeBits } from './file-bits.js';
import { encodeHead, type Head, type HeadEntry, headBytes, MARKED } from './file-header.js';
import { Section } from './file-section.js';

/** What is about to be written of one bitmap. */
export interface NewSection {
  readonly name: string;
  readonly granularity: number;
  readonly recording: boolean;
  readonly inconsistent: boolean;
  /** A snapshot, or a section that nobody has loaded, to be copied as it is. */
  readonly from: Bitmap | Section;
}

export interface WriteOptions {
  readonly size: number;
  readonly identity: string;
  /** Whether the bitmaps go on recording. */
  readonly open: boolean;
}

/** Whether a crash from now on leaves a bitmap that lacks writes. */
export function isMarked({ inconsistent, recording }: NewSection, open: boolean): boolean {
  return inconsistent || (open && recording);
}

/** The persistent bitmaps of this moment. To be freed by {@link freeNewSections}. */
export function newSectionsOf(bitmaps: DirtyBitmaps): NewSection[] {
  const sections: NewSection[] = [];
  try {
    for (const { name, granularity, persistent, recording, inconsistent } of bitmaps.list()) {
      if (!persistent) continue;
      const from = inconsistent ? clean(bitmaps, granularity) : contentOf(bitmaps, name);
      sections.push({ name, granularity, recording, inconsistent, from });
    }
    return sections;
  } catch (error) {
    freeNewSections(sections);
    throw error;
  }
}

/** What lacks writes is of no use to anybody, even if it were stored. */
function clean({ size, arena }: DirtyBitmaps, granularity: number): Bitmap {
  return new Bitmap({ size, granularity, arena });
}

function contentOf(bitmaps: DirtyBitmaps, name: string): Bitmap | Section {
  const stored = bitmaps.untouched(name);
  return stored instanceof Section ? stored : bitmaps.union(name);
}

export function freeNewSections(sections: readonly NewSection[]): void {
  for (const { from } of sections) if (from instanceof Bitmap) from.free();
}

/** Writes a whole file; returns its head. */
export function writeSections(
  write: (bytes: Uint8Array, position: number) => void,
  fresh: readonly NewSection[],
  { size, identity, open }: WriteOptions,
): Head {
  const names = fresh.map(({ name }) => name);
  let position = headBytes(identity, names) + fresh.length;
  const sections = fresh.map((entry) => {
    const section = writeSection((bytes, at) => write(bytes, position + at), entry);
    position += section.sectionBytes;
    return section;
  });
  const head = { size, identity, bitmaps: sections };
  const marks = fresh.map((entry) => (isMarked(entry, open) ? MARKED : 0));
  write(Buffer.concat([encodeHead(head), Uint8Array.from(marks)]), 0);
  return head;
}

/**
 * Writes a whole file of these bitmaps, by name, none of which records; a caller makes it durable. Such a file
 * can be opened as a BitmapFile.
 */
export function writeBitmaps(
  operations: Pick<FileOperations, 'write'>,
  fd: number,
  bitmaps: Readonly<Record<string, Bitmap>>,
  disk: Omit<WriteOptions, 'open'>,
): void {
  const gathered = new Gathered(operations, fd);
  const sections = Object.entries(bitmaps).map(([name, from]) => newSection(name, from));
  writeSections((bytes, at) => gathered.write(bytes, at), sections, { ...disk, open: false });
  gathered.flush();
}

/** A checksum of what is dirty and of the granularity, whose cost follows the runs rather than the size. */
export function checksumOf(bitmap: Bitmap): string {
  const { checksum } = writeSection(() => {}, newSection('', bitmap));
  return `${bitmap.granularity}:${Buffer.from(checksum).toString('hex')}`;
}

function newSection(name: string, from: Bitmap): NewSection {
  return { name, granularity: from.granularity, recording: false, inconsistent: false, from };
}

function writeSection(
  write: (bytes: Uint8Array, at: number) => void,
  section: NewSection,
): HeadEntry {
  const { name, granularity, recording, from } = section;
  const hash = createHash('sha256');
  let sectionBytes = 0;
  const sink = (bytes: Uint8Array): void => {
    hash.update(bytes);
    write(bytes, sectionBytes);
    sectionBytes += bytes.length;
  };
  if (from instanceof Section) from.copy(sink);
  else writeBits(from, sink);
  const { dirtyBytes } = from instanceof Section ? from.head : from;
  return { name, granularity, recording, dirtyBytes, sectionBytes, checksum: hash.digest() };
}

/** Gathers small writes into larger ones; those that do not follow each other are told apart. */
export class Gathered {
  readonly #write: (bytes: Uint8Array, position: number) => void;
  readonly #buffer = Buffer.alloc(65536);
  #filled = 0;
  #position = 0;

  constructor(operations: Pick<FileOperations, 'write'>, fd: number) {
    this.#write = (bytes, position) => operations.write(fd, bytes, position);
  }

  write(bytes: Uint8Array, position: number): void {
    const follows = position === this.#position + this.#filled;
    if (!follows || bytes.length > this.#buffer.length - this.#filled) this.flush();
    if (this.#filled === 0) this.#position = position;
    if (bytes.length > this.#buffer.length) {
      this.#write(bytes, position);
      return;
    }
    this.#buffer.set(bytes, this.#filled);
    this.#filled += bytes.length;
  }

  flush(): void {
    if (this.#filled > 0) this.#write(this.#buffer.subarray(0, this.#filled), this.#position);
    this.#filled = 0;
  }
}
