import { viewOf } from '../../util/index.js';
import { MAX_STRING_BYTES } from './constants.js';
import { decodeText } from './text.js';

/** Puts a payload together, one field after another. */
export class FieldWriter {
  readonly #parts: Uint8Array[] = [];

  u16(value: number): this {
    return this.bytes(Uint8Array.of(value >>> 8, value));
  }

  u32(value: number): this {
    return this.u16(value >>> 16).u16(value & 0xffff);
  }

  /** A text behind its length of 32 bits. */
  text(text: Uint8Array): this {
    return this.u32(text.length).bytes(text);
  }

  bytes(bytes: Uint8Array): this {
    this.#parts.push(bytes);
    return this;
  }

  end(): Uint8Array {
    return Buffer.concat(this.#parts);
  }
}

/** Takes a payload apart, one field after another; `fit` turns false for good where one is not there. */
export class FieldReader {
  fit = true;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = viewOf(bytes);
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  u16(): number {
    const at = this.#take(2);
    return this.fit ? this.#view.getUint16(at) : 0;
  }

  u32(): number {
    const at = this.#take(4);
    return this.fit ? this.#view.getUint32(at) : 0;
  }

  /** A text behind its length of 32 bits. */
  text(longest = MAX_STRING_BYTES): string {
    const length = this.u32();
    if (length > longest) this.fit = false;
    const at = this.#take(length);
    return this.fit ? decodeText(this.#bytes.subarray(at, at + length)) : '';
  }

  /** All that is left, as text. */
  rest(): string {
    const at = this.#take(this.left);
    return this.fit ? decodeText(this.#bytes.subarray(at)) : '';
  }

  #take(count: number): number {
    const at = this.#at;
    if (count > this.left) this.fit = false;
    else this.#at += count;
    return at;
  }
}
