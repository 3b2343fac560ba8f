import { protocolError } from './failures.js';

/** A JSON object as it came over the wire, of which nothing is known yet. */
export type JsonObject = { readonly [key: string]: unknown };

/** How much a peer may say at once. */
export interface JsonLimits {
  /** Bytes of one object. */
  readonly maximumBytes: number;
  /** Objects and lists inside one another. */
  readonly maximumDepth: number;
  /** Values, names and brackets of one object. */
  readonly maximumTokens: number;
}

/** The largest answers that QEMU is known to give are lists of nodes, of about 1 KB each. */
const LIMITS: JsonLimits = {
  maximumBytes: 64 * 2 ** 20,
  maximumDepth: 256,
  maximumTokens: Number.POSITIVE_INFINITY,
};

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPENING = new Set([0x7b, 0x5b]);
const CLOSING = new Set([0x7d, 0x5d]);
const OBJECT = 0x7b;
const LINE_END = 0x0a;
/** Each stands behind a value or a name, but for the last one of an object or a list, which its bracket counts for. */
const SEPARATORS = new Set([0x2c, 0x3a]);
const SPACE = new Set([0x20, 0x09, 0x0a, 0x0d]);
/** Stands in no UTF-8 text: the guest agent puts it before the answer to `guest-sync-delimited`. */
const DELIMITER = 0xff;

export interface JsonStreamEvents {
  /** A whole object has arrived. */
  object(value: JsonObject): void;
  /** Byte 0xFF has arrived, and what was begun before it is dropped. Without this the byte is an error. */
  delimiter?(): void;
  /**
   * What came cannot be read; `what` says what it was. What began so is dropped up to the end of the line, and what
   * comes behind that is read again. Without this it is an error.
   */
  broken?(what: string): void;
  /** Reads the text of an object. It throws a SyntaxError where that is not JSON. Default `JSON.parse`. */
  parse?(text: string): unknown;
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
  #tokens = 0;
  /** Drops what comes, until the line ends. */
  #isSkipping = false;

  constructor(events: JsonStreamEvents, limits: Partial<JsonLimits> = {}) {
    this.#events = events;
    this.#limits = { ...LIMITS, ...limits };
  }

  /** Bytes of an object that is not whole yet. */
  get keptBytes(): number {
    return this.#keptBytes;
  }

  /**
   * Takes the next bytes, and hands out the objects that they complete.
   *
   * @throws LacunaError ERR_QMP_PROTOCOL for what is not JSON, not UTF-8, too long or too deep, unless `broken` is told of it.
   */
  push(bytes: Uint8Array): void {
    let start = 0;
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at];
      if (this.#isSkipping) {
        this.#isSkipping = byte !== LINE_END && byte !== DELIMITER;
      } else if (byte === DELIMITER) {
        this.#delimit();
        start = at + 1;
      } else if (this.#depth === 0) {
        start = at;
        this.#begin(byte);
      } else if (this.#isInString) this.#inString(byte);
      else if (byte === QUOTE) this.#isInString = true;
      else if (OPENING.has(byte)) this.#deeper();
      else if (SEPARATORS.has(byte)) this.#count();
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
      this.#fail(`byte 0x${byte.toString(16).padStart(2, '0')} where a JSON object should begin`);
      return;
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
    this.#count();
    if (++this.#depth <= maximumDepth) return;
    this.#fail(`JSON that is nested more than ${maximumDepth} levels deep`);
  }

  #count(): void {
    const { maximumTokens } = this.#limits;
    if (++this.#tokens <= maximumTokens) return;
    this.#fail(`a JSON object of more than ${maximumTokens} parts`);
  }

  /** Copies a piece: the socket uses its memory again. The room doubles, or single bytes would cost ever more. */
  #keep(piece: Uint8Array): void {
    const { maximumBytes } = this.#limits;
    const length = this.#keptBytes + piece.length;
    if (length > maximumBytes) {
      this.#fail(`a JSON object of more than ${maximumBytes} bytes`);
      return;
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
    if (this.#isSkipping) {
      // It was too long, and has ended.
      this.#isSkipping = false;
      return;
    }
    const bytes = this.#kept.subarray(0, this.#keptBytes);
    this.#reset();
    const value = this.#parse(bytes);
    if (value !== undefined) this.#events.object(value);
  }

  #parse(bytes: Uint8Array): JsonObject | undefined {
    let text: string;
    try {
      text = this.#decoder.decode(bytes);
    } catch (cause) {
      return this.#fail('text that is not UTF-8', { cause, isOver: true });
    }
    try {
      return (this.#events.parse ?? JSON.parse)(text) as JsonObject;
    } catch (cause) {
      return this.#fail('something that is not JSON', { cause, isOver: true });
    }
  }

  /** @param isOver whether what cannot be read has ended already. */
  #fail(
    what: string,
    { cause, isOver = false }: { cause?: unknown; isOver?: boolean } = {},
  ): undefined {
    if (this.#events.broken === undefined) throw protocolError(`it sent ${what}`, cause);
    this.#reset();
    this.#isSkipping = !isOver;
    this.#events.broken(cause instanceof SyntaxError ? cause.message : what);
  }

  #delimit(): void {
    if (this.#events.delimiter === undefined) {
      this.#fail('byte 0xff, which is not UTF-8', { isOver: true });
      return;
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
    this.#tokens = 0;
  }
}
