/** What a server answers to options: replies, and what stands in those that are more than a type. */
import { viewOf } from '../../util/index.js';
import { OPTION_ERROR, OPTION_REPLY_MAGIC } from './constants.js';
import { FieldReader, FieldWriter } from './fields.js';
import { encodeText } from './text.js';

/** Magic, option, type, length: what precedes every option reply's payload. */
export const OPTION_REPLY_BYTES = 20;

export interface OptionReplyHeader {
  /** The option that is answered. */
  readonly option: number;
  readonly type: number;
  /** Bytes of payload that follow. */
  readonly length: number;
}

const NOTHING = new Uint8Array(0);

export function encodeOptionReply(
  option: number,
  type: number,
  payload: Uint8Array = NOTHING,
): Uint8Array {
  const bytes = new Uint8Array(OPTION_REPLY_BYTES + payload.length);
  const view = viewOf(bytes);
  view.setBigUint64(0, OPTION_REPLY_MAGIC);
  view.setUint32(8, option);
  view.setUint32(12, type);
  view.setUint32(16, payload.length);
  bytes.set(payload, OPTION_REPLY_BYTES);
  return bytes;
}

/** The first {@link OPTION_REPLY_BYTES} of a reply; undefined where the magic is wrong and the stream is lost. */
export function decodeOptionReplyHeader(bytes: Uint8Array): OptionReplyHeader | undefined {
  const view = viewOf(bytes);
  if (view.getBigUint64(0) !== OPTION_REPLY_MAGIC) return undefined;
  return { option: view.getUint32(8), type: view.getUint32(12), length: view.getUint32(16) };
}

/** Whether a reply of this type is a refusal; its payload is then text for people. */
export function isOptionError(type: number): boolean {
  return type >= OPTION_ERROR;
}

/** An export that a server offers ("NBD_REP_SERVER"). */
export interface ListedExport {
  /** What to ask for; empty for the default export. */
  readonly name: string;
  /** The server's words about it; empty where it has none. */
  readonly description: string;
}

export function encodeListed({ name, description }: ListedExport): Uint8Array {
  const fields = new FieldWriter().text(encodeText(name, 'the export name'));
  return fields.bytes(encodeText(description, 'the export description')).end();
}

/** The export; undefined where its name is longer than the payload. */
export function decodeListed(payload: Uint8Array): ListedExport | undefined {
  const fields = new FieldReader(payload);
  const name = fields.text(payload.length);
  const description = fields.rest();
  return fields.fit ? { name, description } : undefined;
}

/** A metadata context, and the id that stands for it in block status replies ("NBD_REP_META_CONTEXT"). */
export interface MetaContext {
  readonly id: number;
  readonly name: string;
}

export function encodeMetaContext({ id, name }: MetaContext): Uint8Array {
  return new FieldWriter().u32(id).bytes(encodeText(name, 'a context name')).end();
}

/** The context; undefined where the payload has no name. */
export function decodeMetaContext(payload: Uint8Array): MetaContext | undefined {
  const fields = new FieldReader(payload);
  const id = fields.u32();
  return fields.fit && fields.left > 0 ? { id, name: fields.rest() } : undefined;
}
