/** What a client asks during the handshake: options, and what stands in those that are more than a number. */
import { viewOf } from '../../util/index.js';
import { OPTION_MAGIC } from './constants.js';
import { FieldReader, FieldWriter } from './fields.js';
import { encodeText } from './text.js';

/** Magic, option, length: what precedes every option's payload. */
export const OPTION_BYTES = 16;

export interface OptionHeader {
  readonly option: number;
  /** Bytes of payload that follow. */
  readonly length: number;
}

const NOTHING = new Uint8Array(0);

/** An option with its payload, ready to be sent. */
export function encodeOption(option: number, payload: Uint8Array = NOTHING): Uint8Array {
  const bytes = new Uint8Array(OPTION_BYTES + payload.length);
  const view = viewOf(bytes);
  view.setBigUint64(0, OPTION_MAGIC);
  view.setUint32(8, option);
  view.setUint32(12, payload.length);
  bytes.set(payload, OPTION_BYTES);
  return bytes;
}

/** The first {@link OPTION_BYTES} of an option; undefined where the magic is wrong and the stream is lost. */
export function decodeOptionHeader(bytes: Uint8Array): OptionHeader | undefined {
  const view = viewOf(bytes);
  if (view.getBigUint64(0) !== OPTION_MAGIC) return undefined;
  return { option: view.getUint32(8), length: view.getUint32(12) };
}

/** INFO and GO: the export, and which infos are asked for ("NBD_OPT_INFO"). */
export interface InfoQuery {
  readonly exportName: string;
  readonly infos: readonly number[];
}

/** @throws TypeError when the name cannot be sent. */
export function encodeInfoQuery(exportName: string, infos: readonly number[]): Uint8Array {
  const fields = new FieldWriter().text(encodeText(exportName, 'the export name'));
  fields.u16(infos.length);
  for (const info of infos) fields.u16(info);
  return fields.end();
}

/** The query; undefined where the payload is not exactly one. */
export function decodeInfoQuery(payload: Uint8Array): InfoQuery | undefined {
  const fields = new FieldReader(payload);
  const exportName = fields.text();
  const count = fields.u16();
  const infos: number[] = [];
  if (count * 2 !== fields.left) return undefined;
  for (let i = 0; i < count; i++) infos.push(fields.u16());
  return fields.fit ? { exportName, infos } : undefined;
}

/** LIST_META_CONTEXT and SET_META_CONTEXT: the export, and the queries. */
export interface ContextQuery {
  readonly exportName: string;
  readonly queries: readonly string[];
}

/** @throws TypeError when a name cannot be sent. */
export function encodeContextQuery(exportName: string, queries: readonly string[]): Uint8Array {
  const fields = new FieldWriter().text(encodeText(exportName, 'the export name'));
  fields.u32(queries.length);
  for (const query of queries) fields.text(encodeText(query, 'a context name'));
  return fields.end();
}

/** The query; undefined where the payload is not exactly one. */
export function decodeContextQuery(payload: Uint8Array): ContextQuery | undefined {
  const fields = new FieldReader(payload);
  const exportName = fields.text();
  const count = fields.u32();
  const queries: string[] = [];
  // A count is a claim; memory is taken for what is there.
  for (let i = 0; i < count && fields.fit; i++) queries.push(fields.text());
  return fields.fit && fields.left === 0 ? { exportName, queries } : undefined;
}
