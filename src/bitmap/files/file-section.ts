import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { LacunaError } from '../../errors/index.js';
import type { Arena } from '../../wasm/index.js';
import { Bitmap } from '../bits/index.js';
import type { StoredBitmap } from '../named/index.js';
import { readBits } from './file-bits.js';
import { corrupt, fileFailure } from './file-failures.js';
import type { HeadEntry } from './file-header.js';

const BUFFER_BYTES = 65536;

/** Where a section lies. */
export interface Place {
  readonly fd: number;
  readonly path: string;
  readonly position: number;
}

/** One bitmap in an open file, read when somebody asks for its bits. */
export class Section implements StoredBitmap {
  readonly inconsistent: boolean;
  readonly readOnly: boolean;
  /** Moves when the file is replaced and this part of it copied; null when it is closed. */
  place: Place | null;
  readonly #head: HeadEntry;
  readonly #size: number;
  readonly #arena: Arena;

  constructor(
    head: HeadEntry,
    options: { size: number; arena: Arena; place: Place; inconsistent: boolean; readOnly: boolean },
  ) {
    this.#head = head;
    this.#size = options.size;
    this.#arena = options.arena;
    this.place = options.place;
    this.inconsistent = options.inconsistent;
    this.readOnly = options.readOnly;
  }

  get head(): HeadEntry {
    return this.#head;
  }

  get name(): string {
    return this.#head.name;
  }

  get granularity(): number {
    return this.#head.granularity;
  }

  get recording(): boolean {
    return this.#head.recording && !this.inconsistent;
  }

  get dirtyBytes(): number {
    return this.inconsistent ? 0 : this.#head.dirtyBytes;
  }

  /** @throws LacunaError ERR_BITMAP_CORRUPT, ERR_BITMAP_FILE, ERR_ARENA_FULL */
  load(): Bitmap {
    const { granularity } = this;
    const bitmap = new Bitmap({ size: this.#size, granularity, arena: this.#arena });
    try {
      const reader = new SectionReader(this);
      readBits(bitmap, reader);
      reader.finish();
      if (bitmap.dirtyBytes !== this.#head.dirtyBytes) {
        throw reader.corrupt(`${bitmap.dirtyBytes} bytes are dirty, not ${this.#head.dirtyBytes}`);
      }
      return bitmap;
    } catch (error) {
      bitmap.free();
      throw error;
    }
  }

  /** The bytes of the section as they are, in pieces that are only valid during the call. */
  copy(sink: (bytes: Uint8Array) => void): void {
    const reader = new SectionReader(this);
    while (reader.left > 0) sink(reader.take(Math.min(reader.left, BUFFER_BYTES)));
    reader.finish();
  }
}

/** Reads a section in small pieces and sums them up: nothing that it claims takes more memory. */
class SectionReader {
  /** Bytes that were not taken yet. */
  left: number;
  readonly #name: string;
  readonly #head: HeadEntry;
  readonly #place: Place;
  readonly #hash = createHash('sha256');
  readonly #buffer = Buffer.alloc(BUFFER_BYTES);
  #filled = 0;
  #at = 0;

  constructor(section: Section) {
    if (section.place === null) throw closed(section.name);
    this.#name = section.name;
    this.#head = section.head;
    this.#place = section.place;
    this.left = section.head.sectionBytes;
  }

  corrupt(what: string): Error {
    return corrupt(this.#place.path, `in bitmap '${this.#name}', ${what}`);
  }

  take(length: number): Buffer {
    if (length > this.left) throw this.corrupt('its section ends too early');
    if (length > this.#filled - this.#at) this.#fill();
    this.#at += length;
    this.left -= length;
    return this.#buffer.subarray(this.#at - length, this.#at);
  }

  finish(): void {
    if (this.left > 0) throw this.corrupt(`${this.left} bytes too many follow`);
    if (this.#hash.digest().equals(this.#head.checksum)) return;
    throw this.corrupt('its bits have changed');
  }

  /** Moves what was not taken to the front and reads on. */
  #fill(): void {
    this.#buffer.copyWithin(0, this.#at, this.#filled);
    this.#filled -= this.#at;
    this.#at = 0;
    const { sectionBytes } = this.#head;
    const done = sectionBytes - this.left + this.#filled;
    const length = Math.min(BUFFER_BYTES - this.#filled, sectionBytes - done);
    const { fd, path, position } = this.#place;
    const target = this.#buffer.subarray(this.#filled, this.#filled + length);
    readFully(fd, path, target, position + done);
    this.#hash.update(target);
    this.#filled += length;
  }
}

/** Fills `target` from a file. */
export function readFully(fd: number, path: string, target: Buffer, position: number): void {
  for (let done = 0; done < target.length; ) {
    let read: number;
    try {
      read = fs.readSync(fd, target, done, target.length - done, position + done);
    } catch (error) {
      throw fileFailure('read', path, error);
    }
    if (read === 0) throw corrupt(path, `it ends at byte ${position + done}`);
    done += read;
  }
}

function closed(name: string): LacunaError {
  return new LacunaError(
    'ERR_BITMAP_FILE',
    `cannot read bitmap '${name}': its file has been closed. Open it again`,
  );
}
