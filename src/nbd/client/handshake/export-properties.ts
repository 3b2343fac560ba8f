import { DEFAULT_MAX_PAYLOAD, ExportFlag, MAX_LENGTH } from '../../wire/index.js';
import type { Agreement } from './handshake.js';

/** The longest payload that any server in use takes, and what libnbd sends at most. */
const LONGEST_PAYLOAD = 64 * 1024 * 1024;

/** What the handshake told about an export. */
export class ExportProperties {
  /** Bytes. */
  readonly size: number;
  /** Nothing can be changed. */
  readonly readOnly: boolean;
  /** Can make what was written durable. */
  readonly canFlush: boolean;
  /** A single write can be made durable. */
  readonly canFua: boolean;
  /** Can be told what is not needed any more. */
  readonly canTrim: boolean;
  /** Makes ranges read as zero without being sent the zeroes. */
  readonly canWriteZeroes: boolean;
  /** Knows how to refuse a zero request that would be slow. */
  readonly canFastZero: boolean;
  /** Can be told what will be read soon. */
  readonly canCache: boolean;
  /** Can be asked to send a read in one piece. */
  readonly canDontFragment: boolean;
  /** A status request can name the contexts that it is made for; otherwise all are answered. */
  readonly canChooseContexts: boolean;
  /** What one connection has flushed, every other one reads. */
  readonly canMultiConn: boolean;
  /** Lies on a device with slow seeks. */
  readonly rotational: boolean;
  /** Structured replies were agreed on. */
  readonly structured: boolean;
  /** Extended headers were agreed on: lengths without payload have 64 bits. */
  readonly extended: boolean;
  /** The granted metadata contexts. */
  readonly contexts: readonly string[];
  /** Offsets and lengths of all requests should be multiples of this; a power of two. */
  readonly minimumBlock: number;
  /** They must be multiples of this: `minimumBlock` where the server said it, else 1. */
  readonly requiredBlock: number;
  /** Multiples of this are fast; a power of two. */
  readonly preferredBlock: number;
  /** The longest read or write. */
  readonly maximumPayload: number;
  /**
   * The longest request without payload; what is longer is made of several, and status is told for less. A server
   * that refuses a zero or trim request of this length is asked for `maximumPayload` bytes at a time.
   */
  readonly maximumLength: number;

  /** @internal */
  constructor(agreement: Agreement) {
    const { size, flags, structured, extended, contexts, blockSizes } = agreement;
    const has = (flag: number) => (flags & flag) !== 0;
    this.size = size;
    this.readOnly = has(ExportFlag.readOnly);
    this.canFlush = has(ExportFlag.flush);
    this.canFua = has(ExportFlag.fua);
    this.canTrim = has(ExportFlag.trim) && !this.readOnly;
    this.canWriteZeroes = has(ExportFlag.writeZeroes) && !this.readOnly;
    this.canFastZero = this.canWriteZeroes && has(ExportFlag.fastZero);
    this.canCache = has(ExportFlag.cache);
    this.canDontFragment = structured && has(ExportFlag.dontFragment);
    this.canChooseContexts = extended && has(ExportFlag.blockStatusPayload);
    this.canMultiConn = has(ExportFlag.multiConnection);
    this.rotational = has(ExportFlag.rotational);
    this.structured = structured;
    this.extended = extended;
    this.contexts = contexts.map((context) => context.name);
    this.minimumBlock = blockSizes.minimum;
    this.requiredBlock = agreement.blockSizesTold ? blockSizes.minimum : 1;
    this.preferredBlock = blockSizes.preferred;
    this.maximumPayload = longestPayload(blockSizes.maximum, blockSizes.minimum);
    const longest = extended ? Number.MAX_SAFE_INTEGER : MAX_LENGTH;
    this.maximumLength = longest - (longest % blockSizes.preferred);
  }
}

/** "Unlimited" says nothing of what a server really takes; 32 MiB is what all of them do. */
function longestPayload(maximum: number, minimum: number): number {
  const bounded = maximum === MAX_LENGTH ? DEFAULT_MAX_PAYLOAD : Math.min(maximum, LONGEST_PAYLOAD);
  return bounded - (bounded % minimum);
}
