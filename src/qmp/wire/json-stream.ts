import { protocolError } from './failures.js';

/** A JSON object as it came over the wire, of which nothing is known yet. */
export type JsonObject = { readonly [key: string]: unknown };

/** How much a peer may say at once. */
export interface JsonLimits {
  /** Bytes of one object. */
  readonly maximumBytes: number;
  /** Objects and lists inside one another. */
  readonly maximumDepth: number;
}

/** The largest answers that QEMU is known to give are lists of nodes, of about 1 KB each. */
const LIMITS: JsonLimits = { maximumBytes: 64 * 2 ** 20, maximumDepth: 256 };

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPENING = new Set([0x7b, 0x5b]);
const CLOSING = new Set([0x7d, 0x5d]);
const OBJECT = 0x7b;
const SPACE = new Set([0x20, 0x09, 0x0a, 0x0d]);
/** Stands in no UTF-8 text: the guest agent puts it before the answer to `guest-sync-delimited`. */
const DELIMITER = 0xff;

export interface JsonStreamEvents {
  /** A whole object has arrived. */
  object(value: JsonObject): void;
  /** Byte 0xFF has arrived, and what was begun before it is dropped. Without this the byte is an error. */
  delimiter?(): void;
}

/**
 * Cuts a stream of bytes into JSON objects, wherever the stream was cut by the network, and however the objects are
 * laid out: a QMP server may print one object over many lines. Each byte is looked at once.
 */
export class JsonStream {
  readonly #events: JsonStreamEvents;
  readonly #limits: JsonLimits;
  readonly #decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  /** The beginning of an object that is not whole yet. */
  #kept = new Uint8Array(0);
  #keptBytes = 0;
  #depth = 0;
  #isInString = false;
  #isEscaped = false;

  constructor(events: JsonStreamEvents, limits: Partial<JsonLimits> = {}) {
    this.#events = events;
    this.#limits = { ...LIMITS, ...limits };
  }

  /**
   * Takes the next bytes, and hands out the objects that they complete.
   *
   * @throws LacunaError ERR_QMP_PROTOCOL for what is not JSON, not UTF-8, too long or too deep.
   */
  push(bytes: Uint8Array): void {
    let start = 0;
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at];
      if (byte === DELIMITER) {
        this.#delimit();
        start = at + 1;
      } else if (this.#depth === 0) {
        start = at;
        this.#begin(byte);
      } else if (this.#isInString) this.#inString(byte);
      else if (byte === QUOTE) this.#isInString = true;
      else if (OPENING.has(byte)) this.#deeper();
      else if (CLOSING.has(byte) && --this.#depth === 0) {
        this.#finish(bytes.subarray(start, at + 1));
        start = at + 1;
      }
    }
    if (this.#depth > 0) this.#keep(bytes.subarray(start));
  }

  #begin(byte: number): void {
    if (SPACE.has(byte)) return;
    if (byte !== OBJECT) {
      throw protocolError(
        `it sent byte 0x${byte.toString(16).padStart(2, '0')} where a JSON object should begin`,
      );
    }
    this.#deeper();
  }

  #inString(byte: number): void {
    if (this.#isEscaped) this.#isEscaped = false;
    else if (byte === BACKSLASH) this.#isEscaped = true;
    else if (byte === QUOTE) this.#isInString = false;
  }

  #deeper(): void {
    const { maximumDepth } = this.#limits;
    if (++this.#depth <= maximumDepth) return;
    throw protocolError(`it sent JSON that is nested more than ${maximumDepth} levels deep`);
  }

  /** Copies a piece: the socket uses its memory again. The room doubles, or single bytes would cost ever more. */
  #keep(piece: Uint8Array): void {
    const { maximumBytes } = this.#limits;
    const length = this.#keptBytes + piece.length;
    if (length > maximumBytes) {
      throw protocolError(`it sent a JSON object of more than ${maximumBytes} bytes`);
    }
    if (length > this.#kept.length) {
      const larger = new Uint8Array(Math.max(length, 2 * this.#kept.length));
      larger.set(this.#kept.subarray(0, this.#keptBytes));
      this.#kept = larger;
    }
    this.#kept.set(piece, this.#keptBytes);
    this.#keptBytes = length;
  }

  #finish(last: Uint8Array): void {
    this.#keep(last);
    const bytes = this.#kept.subarray(0, this.#keptBytes);
    this.#reset();
    this.#events.object(this.#parse(bytes));
  }

  #parse(bytes: Uint8Array): JsonObject {
    let text: string;
    try {
      text = this.#decoder.decode(bytes);
    } catch (cause) {
      throw protocolError('it sent text that is not UTF-8', cause);
    }
    try {
      return JSON.parse(text) as JsonObject;
    } catch (cause) {
      throw protocolError('it sent something that is not JSON', cause);
    }
  }

  #delimit(): void {
    if (this.#events.delimiter === undefined) {
      throw protocolError('it sent byte 0xff, which is not UTF-8');
    }
    this.#reset();
    this.#events.delimiter();
  }

  #reset(): void {
    // The next object may be small, and the last one may have been the schema.
    this.#kept = new Uint8Array(0);
    this.#keptBytes = 0;
    this.#depth = 0;
    this.#isInString = false;
    this.#isEscaped = false;
  }
}
