import { readU64, viewOf } from '../../util/index.js';
import { OPTION_MAGIC, OPTION_REPLY_MAGIC } from './constants.js';
import { encodeText } from './text.js';

/** Magic, option, type, length: what precedes every option reply's payload. */
export const OPTION_REPLY_BYTES = 20;

/** An option with its payload, ready to be sent. */
export function encodeOption(option: number, payload: Uint8Array = new Uint8Array(0)): Uint8Array {
  const bytes = new Uint8Array(16 + payload.length);
  const view = viewOf(bytes);
  view.setBigUint64(0, OPTION_MAGIC);
  view.setUint32(8, option);
  view.setUint32(12, payload.length);
  bytes.set(payload, 16);
  return bytes;
}

/** A server's answer to an option. */
export function encodeOptionReply(option: number, type: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(OPTION_REPLY_BYTES + payload.length);
  const view = viewOf(bytes);
  view.setBigUint64(0, OPTION_REPLY_MAGIC);
  view.setUint32(8, option);
  view.setUint32(12, type);
  view.setUint32(16, payload.length);
  bytes.set(payload, OPTION_REPLY_BYTES);
  return bytes;
}

/** Payload of INFO and GO: the export, and which infos are asked for. */
export function encodeInfoQuery(exportName: string, infos: readonly number[]): Uint8Array {
  const name = encodeText(exportName, 'the export name');
  const bytes = new Uint8Array(4 + name.length + 2 + 2 * infos.length);
  const view = viewOf(bytes);
  view.setUint32(0, name.length);
  bytes.set(name, 4);
  view.setUint16(4 + name.length, infos.length);
  for (const [i, info] of infos.entries()) view.setUint16(6 + name.length + 2 * i, info);
  return bytes;
}

/** Payload of LIST_META_CONTEXT and SET_META_CONTEXT: the export, and the queries. */
export function encodeContextQuery(exportName: string, queries: readonly string[]): Uint8Array {
  const texts = [
    encodeText(exportName, 'the export name'),
    ...queries.map((query) => encodeText(query, 'a context name')),
  ];
  const bytes = new Uint8Array(texts.reduce((sum, text) => sum + 4 + text.length, 4));
  const view = viewOf(bytes);
  let at = 0;
  for (const [i, text] of texts.entries()) {
    view.setUint32(at, text.length);
    bytes.set(text, at + 4);
    at += 4 + text.length;
    if (i > 0) continue;
    view.setUint32(at, queries.length);
    at += 4;
  }
  return bytes;
}

/** The three sizes that requests must or should keep to; `maximum` bounds payloads only. */
export interface BlockSizes {
  readonly minimum: number;
  readonly preferred: number;
  readonly maximum: number;
}

/**
 * Body of NBD_INFO_BLOCK_SIZE behind its type, or undefined where the sizes break the rules. Whether the maximum may be
 * below the preferred size depends on the export's.
 */
export function decodeBlockSizes(view: DataView): BlockSizes | undefined {
  if (view.byteLength !== 14) return undefined;
  const minimum = view.getUint32(2);
  const preferred = view.getUint32(6);
  const maximum = view.getUint32(10);
  const valid =
    isPowerOfTwo(minimum) &&
    minimum <= 65536 &&
    isPowerOfTwo(preferred) &&
    preferred >= Math.max(minimum, 512) &&
    maximum >= minimum;
  return valid ? { minimum, preferred, maximum } : undefined;
}

/** Size and flags of an export. The size is rounded where it is above 2^53 - 1. */
export interface ExportInfo {
  readonly size: number;
  readonly flags: number;
}

export function decodeExportInfo(view: DataView, at: number): ExportInfo {
  return { size: readU64(view, at), flags: view.getUint16(at + 8) };
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && Number.isInteger(Math.log2(value));
}
