/**
 * The frame of compressed bytes by zstd (RFC 8878, section 3.1.1). The descriptor of a compressed cluster only tells
 * in which sector its bytes end; behind them may be anything, and a decompressor wants to know where to stop.
 */
import { readU64, viewOf } from '../util/index.js';

const FRAME_MAGIC = 0xfd2fb528;
/** Skippable frames hold nothing. */
const SKIPPABLE_MAGIC = 0x184d2a50;
const DICTIONARY_BYTES = [0, 1, 2, 4];
const CONTENT_SIZE_BYTES = [0, 2, 4, 8];
const RLE_BLOCK = 1;
const RESERVED_BLOCK = 3;
const CHECKSUM_BYTES = 4;

export interface ZstdFrame {
  /** Bytes of the frame. */
  readonly length: number;
  /** Bytes that it holds, where it says so. */
  readonly contentSize?: number;
}

/** The frame that bytes begin with; undefined where there is none, or where it does not end in them. */
export function findZstdFrame(bytes: Uint8Array): ZstdFrame | undefined {
  const view = viewOf(bytes);
  if (bytes.length < 6) return undefined;
  const magic = view.getUint32(0, true);
  if ((magic & 0xffff_fff0) >>> 0 === SKIPPABLE_MAGIC) return skippable(view);
  if (magic !== FRAME_MAGIC) return undefined;
  const descriptor = bytes[4];
  const single = (descriptor & 0x20) !== 0;
  const sizeFlag = descriptor >> 6;
  const sizeBytes = sizeFlag === 0 && single ? 1 : CONTENT_SIZE_BYTES[sizeFlag];
  const sizeAt = 5 + (single ? 0 : 1) + DICTIONARY_BYTES[descriptor & 3];
  const blocksAt = sizeAt + sizeBytes;
  if (blocksAt > bytes.length) return undefined;
  const end = blocksEnd(bytes, blocksAt);
  const length = end === undefined ? Infinity : end + (descriptor & 4 ? CHECKSUM_BYTES : 0);
  if (length > bytes.length) return undefined;
  return { length, contentSize: contentSizeAt(view, sizeAt, sizeBytes) };
}

function skippable(view: DataView): ZstdFrame | undefined {
  if (view.byteLength < 8) return undefined;
  const length = 8 + view.getUint32(4, true);
  return length <= view.byteLength ? { length, contentSize: 0 } : undefined;
}

/** First byte behind the last block. */
function blocksEnd(bytes: Uint8Array, start: number): number | undefined {
  for (let at = start; at + 3 <= bytes.length; ) {
    const head = bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16);
    const kind = (head >> 1) & 3;
    if (kind === RESERVED_BLOCK) return undefined;
    at += 3 + (kind === RLE_BLOCK ? 1 : head >> 3);
    if ((head & 1) === 1) return at;
  }
  return undefined;
}

function contentSizeAt(view: DataView, at: number, bytes: number): number | undefined {
  if (bytes === 0) return undefined;
  if (bytes === 1) return view.getUint8(at);
  if (bytes === 2) return view.getUint16(at, true) + 256;
  if (bytes === 4) return view.getUint32(at, true);
  return readU64(view, at, true);
}
