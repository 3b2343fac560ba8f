import {
  type Asked,
  CHUNK_ERROR,
  Chunk,
  Command,
  DATA_HEAD_BYTES,
  ERROR_HEAD_BYTES,
  EXTENDED_EXTENT_BYTES,
  EXTENDED_STATUS_HEAD_BYTES,
  EXTENT_BYTES,
  extendedExtentCount,
  extentCount,
  HOLE_BYTES,
  MAX_EXTENTS,
  MAX_STRING_BYTES,
  STATUS_HEAD_BYTES,
} from '../../wire/index.js';
import { violation } from '../failures/index.js';

/** The longest error chunk: its fields, a text, and the offset of NBD_REPLY_TYPE_ERROR_OFFSET. */
const MAX_ERROR_BYTES = ERROR_HEAD_BYTES + MAX_STRING_BYTES + 8;
const MAX_STATUS_BYTES = STATUS_HEAD_BYTES + EXTENT_BYTES * MAX_EXTENTS;
const MAX_EXTENDED_STATUS_BYTES = EXTENDED_STATUS_HEAD_BYTES + EXTENDED_EXTENT_BYTES * MAX_EXTENTS;

/** What a chunk's header says of its body. */
export interface ChunkClaim {
  readonly type: number;
  readonly length: number;
  /** Whether it ends its reply. */
  readonly last: boolean;
  /** Extended headers were agreed on: status comes in its wide form, and in no other. */
  readonly extended: boolean;
}

/**
 * Checks what a chunk's header alone can tell ("Structured reply types"), before a single byte of its
 * body is believed. An unknown type is fatal, unless it is an error: of those, the fields are known.
 *
 * @throws LacunaError ERR_NBD_PROTOCOL
 */
export function checkChunk(request: Asked, claim: ChunkClaim): void {
  if (!fitsRequest(request.command, claim)) {
    throw violation(`a chunk of type ${claim.type} in the reply to command ${request.command}`);
  }
  if (!fitsType(request.length, claim)) {
    throw violation(`a chunk of type ${claim.type} with a body of ${claim.length} bytes`);
  }
}

function fitsRequest(command: number, { type, extended }: ChunkClaim): boolean {
  if (type === Chunk.offsetData || type === Chunk.offsetHole) return command === Command.read;
  if (type === Chunk.blockStatus) return command === Command.blockStatus && !extended;
  if (type === Chunk.blockStatusExtended) return command === Command.blockStatus && extended;
  return type === Chunk.none || (type & CHUNK_ERROR) !== 0;
}

function fitsType(requested: number, { type, length, last }: ChunkClaim): boolean {
  switch (type) {
    case Chunk.none:
      return last && length === 0;
    case Chunk.offsetData:
      return length > DATA_HEAD_BYTES && length - DATA_HEAD_BYTES <= requested;
    case Chunk.offsetHole:
      return length === HOLE_BYTES;
    case Chunk.blockStatus:
      return length <= MAX_STATUS_BYTES && extentCount(length) !== undefined;
    case Chunk.blockStatusExtended:
      return length <= MAX_EXTENDED_STATUS_BYTES && extendedExtentCount(length) !== undefined;
    default:
      return length >= ERROR_HEAD_BYTES && length <= MAX_ERROR_BYTES;
  }
}
