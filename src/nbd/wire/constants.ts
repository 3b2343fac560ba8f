/**
 * The numbers of the NBD protocol, named as in the protocol document. All integers on the wire are
 * big-endian. Numbers at or above 2^31 are written out, because JavaScript's shifts make them negative.
 */

/** Greeting: `NBDMAGIC`, then either `IHAVEOPT` (newstyle) or the oldstyle magic. */
export const NBD_MAGIC = 0x4e42444d41474943n;
export const OPTION_MAGIC = 0x49484156454f5054n;
export const OLDSTYLE_MAGIC = 0x00420281861253n;
export const OPTION_REPLY_MAGIC = 0x3e889045565a9n;

export const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const CHUNK_MAGIC = 0x668e33ef;
/** The same two with 64-bit lengths ("Extended headers"); there is no simple reply then. */
export const EXTENDED_REQUEST_MAGIC = 0x21e41c71;
export const EXTENDED_CHUNK_MAGIC = 0x6e8a278c;

/** Handshake flags; the client may echo only those that the server offered. */
export const HandshakeFlag = { fixedNewstyle: 1, noZeroes: 2 } as const;

export const Option = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
  extendedHeaders: 11,
} as const;

export const OptionReply = { ack: 1, server: 2, info: 3, metaContext: 4 } as const;

/** Option replies with this bit are errors; their payload is text for people. */
export const OPTION_ERROR = 0x80000000;

export const OptionError = {
  unsupported: 0x80000001,
  policy: 0x80000002,
  invalid: 0x80000003,
  platform: 0x80000004,
  tlsRequired: 0x80000005,
  unknown: 0x80000006,
  shutdown: 0x80000007,
  blockSizeRequired: 0x80000008,
  tooBig: 0x80000009,
  extendedHeadersRequired: 0x8000000a,
} as const;

export const Info = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

/** What an export can do: the flags that come with its size. */
export const ExportFlag = {
  hasFlags: 1 << 0,
  readOnly: 1 << 1,
  flush: 1 << 2,
  fua: 1 << 3,
  rotational: 1 << 4,
  trim: 1 << 5,
  writeZeroes: 1 << 6,
  dontFragment: 1 << 7,
  multiConnection: 1 << 8,
  resize: 1 << 9,
  cache: 1 << 10,
  fastZero: 1 << 11,
  blockStatusPayload: 1 << 12,
} as const;

export const Command = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
} as const;

export const CommandFlag = {
  fua: 1 << 0,
  noHole: 1 << 1,
  dontFragment: 1 << 2,
  requestOne: 1 << 3,
  fastZero: 1 << 4,
  /** Extended headers only: the length is that of a payload, which follows. */
  payloadLength: 1 << 5,
} as const;

/** Types of the chunks that a structured reply is made of. */
export const Chunk = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  blockStatusExtended: 6,
  error: 0x8001,
  errorOffset: 0x8002,
} as const;

/** Chunk types with this bit are errors, known or not. */
export const CHUNK_ERROR = 0x8000;
export const CHUNK_DONE = 1;

/** Flags of the context `base:allocation`. */
export const Allocation = { hole: 1, zero: 2 } as const;

/** Names and texts are at most this long ("Strings"). */
export const MAX_STRING_BYTES = 4096;
/** A server should send no more extents than this in one chunk ("NBD_REPLY_TYPE_BLOCK_STATUS"). */
export const MAX_EXTENTS = 2 ** 20;
/** What every server takes when no block sizes were agreed ("Block size constraints"). */
export const DEFAULT_MAX_PAYLOAD = 32 * 1024 * 1024;
/** The field of a request's length has 32 bits. */
export const MAX_LENGTH = 0xffffffff;
