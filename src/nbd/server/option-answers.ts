/** What a server says about options and exports, as bytes. */
import { viewOf, writeU64 } from '../../util/index.js';
import { encodeOptionReply, Info, OptionError, OptionReply } from '../wire/index.js';
import type { ServedContext, ServedExport } from './served-export.js';

const encoder = new TextEncoder();
const NOTHING = new Uint8Array(0);

export function ack(option: number): Uint8Array {
  return encodeOptionReply(option, OptionReply.ack, NOTHING);
}

/** A refusal, with a text for people. */
export function refuse(option: number, error: keyof typeof OptionError, why: string): Uint8Array {
  return encodeOptionReply(option, OptionError[error], encoder.encode(why));
}

/** One line of a LIST: the name, and behind it the description ("NBD_REP_SERVER"). */
export function listed(option: number, { name, description }: ServedExport): Uint8Array {
  const nameBytes = encoder.encode(name);
  const payload = concat(u32(nameBytes.length), nameBytes, encoder.encode(description));
  return encodeOptionReply(option, OptionReply.server, payload);
}

export function metaContext(option: number, { id, name }: ServedContext): Uint8Array {
  return encodeOptionReply(option, OptionReply.metaContext, concat(u32(id), encoder.encode(name)));
}

/** The infos of an export: size and flags and block sizes always, texts where they are asked for. */
export function infos(
  option: number,
  served: ServedExport,
  { flags, asked }: { flags: number; asked: readonly number[] },
): Uint8Array {
  const replies = [exportInfo(served.size, flags), blockSizeInfo(served)];
  if (asked.includes(Info.name)) replies.push(textInfo(Info.name, served.name));
  if (asked.includes(Info.description) && served.description !== '') {
    replies.push(textInfo(Info.description, served.description));
  }
  return concat(...replies.map((info) => encodeOptionReply(option, OptionReply.info, info)));
}

/** The answer to EXPORT_NAME, which has no header of its own. */
export function exportNameAnswer(size: number, flags: number, zeroes: boolean): Uint8Array {
  const bytes = new Uint8Array(zeroes ? 134 : 10);
  writeU64(viewOf(bytes), 0, size);
  viewOf(bytes).setUint16(8, flags);
  return bytes;
}

function exportInfo(size: number, flags: number): Uint8Array {
  const bytes = new Uint8Array(12);
  const view = viewOf(bytes);
  view.setUint16(0, Info.export);
  writeU64(view, 2, size);
  view.setUint16(10, flags);
  return bytes;
}

function blockSizeInfo({ blockSizes }: ServedExport): Uint8Array {
  const bytes = new Uint8Array(14);
  const view = viewOf(bytes);
  view.setUint16(0, Info.blockSize);
  view.setUint32(2, blockSizes.minimum);
  view.setUint32(6, blockSizes.preferred);
  view.setUint32(10, blockSizes.maximum);
  return bytes;
}

function textInfo(type: number, text: string): Uint8Array {
  const head = new Uint8Array(2);
  viewOf(head).setUint16(0, type);
  return concat(head, encoder.encode(text));
}

function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  viewOf(bytes).setUint32(0, value);
  return bytes;
}

function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
