import { DEFAULT_MAX_PAYLOAD, ExportFlag, MAX_LENGTH } from '../wire/constants.js';
import type { Agreement } from './handshake.js';

/** The longest payload that any server in use takes, and what libnbd sends at most. */
const LONGEST_PAYLOAD = 64 * 1024 * 1024;

/** What the handshake told about an export. */
export class ExportProperties {
  /** Bytes. */
  readonly size: number;
  readonly readOnly: boolean;
  readonly canFlush: boolean;
  /** A single write can be made durable. */
  readonly canFua: boolean;
  readonly canTrim: boolean;
  readonly canWriteZeroes: boolean;
  /** Knows how to refuse a zero request that would be slow. */
  readonly canFastZero: boolean;
  /** What one connection has flushed, every other one reads. */
  readonly canMultiConn: boolean;
  /** Lies on a device with slow seeks. */
  readonly rotational: boolean;
  /** Structured replies were agreed on. */
  readonly structured: boolean;
  /** The granted metadata contexts. */
  readonly contexts: readonly string[];
  /** Offsets and lengths of all requests should be multiples of this; a power of two. */
  readonly minimumBlock: number;
  /** Multiples of this are fast; a power of two. */
  readonly preferredBlock: number;
  /** The longest read or write. */
  readonly maximumPayload: number;
  /** The longest trim or zero request; status may be asked for more, and is told for less. */
  readonly maximumLength: number;

  constructor({ size, flags, structured, contexts, blockSizes }: Agreement) {
    const has = (flag: number) => (flags & flag) !== 0;
    this.size = size;
    this.readOnly = has(ExportFlag.readOnly);
    this.canFlush = has(ExportFlag.flush);
    this.canFua = has(ExportFlag.fua);
    this.canTrim = has(ExportFlag.trim) && !this.readOnly;
    this.canWriteZeroes = has(ExportFlag.writeZeroes) && !this.readOnly;
    this.canFastZero = this.canWriteZeroes && has(ExportFlag.fastZero);
    this.canMultiConn = has(ExportFlag.multiConnection);
    this.rotational = has(ExportFlag.rotational);
    this.structured = structured;
    this.contexts = contexts.map((context) => context.name);
    this.minimumBlock = blockSizes.minimum;
    this.preferredBlock = blockSizes.preferred;
    this.maximumPayload = longestPayload(blockSizes.maximum, blockSizes.minimum);
    this.maximumLength = MAX_LENGTH - (MAX_LENGTH % blockSizes.preferred);
  }
}

/** "Unlimited" says nothing of what a server really takes; 32 MiB is what all of them do. */
function longestPayload(maximum: number, minimum: number): number {
  const bounded = maximum === MAX_LENGTH ? DEFAULT_MAX_PAYLOAD : Math.min(maximum, LONGEST_PAYLOAD);
  return bounded - (bounded % minimum);
}
