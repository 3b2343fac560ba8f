/** What a server tells of an export before it is used: the payloads of NBD_REP_INFO, and the answer to EXPORT_NAME. */
import { isPowerOfTwo, readU64, viewOf, writeU64 } from '../../util/index.js';
import { Info } from './constants.js';
import { FieldReader, FieldWriter } from './fields.js';
import { encodeText } from './text.js';

/** Size and flags of an export. The size is rounded where it is above 2^53 - 1. */
export interface ExportInfo {
  readonly size: number;
  readonly flags: number;
}

/** The three sizes that requests must or should keep to; `maximum` bounds payloads only. */
export interface BlockSizes {
  readonly minimum: number;
  readonly preferred: number;
  readonly maximum: number;
}

/** Which info a payload is; undefined where it is too short to say. */
export function infoType(payload: Uint8Array): number | undefined {
  return payload.length < TYPE_BYTES ? undefined : viewOf(payload).getUint16(0);
}

/** NBD_INFO_EXPORT. */
export function encodeExportInfo(info: ExportInfo): Uint8Array {
  const bytes = new Uint8Array(TYPE_BYTES + EXPORT_BYTES);
  viewOf(bytes).setUint16(0, Info.export);
  writeExport(viewOf(bytes), TYPE_BYTES, info);
  return bytes;
}

/** Size and flags; undefined where the payload has another length. */
export function decodeExportInfo(payload: Uint8Array): ExportInfo | undefined {
  if (payload.length !== TYPE_BYTES + EXPORT_BYTES) return undefined;
  return readExport(viewOf(payload), TYPE_BYTES);
}

/** NBD_INFO_BLOCK_SIZE. */
export function encodeBlockSizes({ minimum, preferred, maximum }: BlockSizes): Uint8Array {
  return new FieldWriter().u16(Info.blockSize).u32(minimum).u32(preferred).u32(maximum).end();
}

/**
 * The sizes; undefined where they break the rules. Whether the maximum may be below the preferred size depends on the
 * export's.
 */
export function decodeBlockSizes(payload: Uint8Array): BlockSizes | undefined {
  const fields = new FieldReader(payload);
  fields.u16();
  const [minimum, preferred, maximum] = [fields.u32(), fields.u32(), fields.u32()];
  const valid =
    isPowerOfTwo(minimum) &&
    minimum <= 65536 &&
    isPowerOfTwo(preferred) &&
    preferred >= Math.max(minimum, 512) &&
    maximum >= minimum;
  return valid && fields.fit && fields.left === 0 ? { minimum, preferred, maximum } : undefined;
}

/** NBD_INFO_NAME and NBD_INFO_DESCRIPTION. */
export function encodeTextInfo(type: number, text: string): Uint8Array {
  return new FieldWriter().u16(type).bytes(encodeText(text, 'a text about the export')).end();
}

export function decodeTextInfo(payload: Uint8Array): string {
  const fields = new FieldReader(payload);
  fields.u16();
  return fields.rest();
}

/** The answer to EXPORT_NAME, which has no header of its own. */
export const EXPORT_NAME_BYTES = 10;
/** Zeroes behind it, unless both sides agreed to leave them out. */
export const EXPORT_NAME_ZEROES = 124;

export function encodeExportNameAnswer(info: ExportInfo, zeroes: boolean): Uint8Array {
  const bytes = new Uint8Array(EXPORT_NAME_BYTES + (zeroes ? EXPORT_NAME_ZEROES : 0));
  writeExport(viewOf(bytes), 0, info);
  return bytes;
}

/** @param bytes {@link EXPORT_NAME_BYTES} of them. */
export function decodeExportNameAnswer(bytes: Uint8Array): ExportInfo {
  return readExport(viewOf(bytes), 0);
}

const TYPE_BYTES = 2;
const EXPORT_BYTES = 10;

function writeExport(view: DataView, at: number, { size, flags }: ExportInfo): void {
  writeU64(view, at, size);
  view.setUint16(at + 8, flags);
}

function readExport(view: DataView, at: number): ExportInfo {
  return { size: readU64(view, at), flags: view.getUint16(at + 8) };
}
