/** What a server says about options and exports, as bytes. */
import {
  encodeBlockSizes,
  encodeExportInfo,
  encodeListed,
  encodeMetaContext,
  encodeOptionReply,
  encodeText,
  encodeTextInfo,
  Info,
  type ListedExport,
  type MetaContext,
  OptionError,
  OptionReply,
} from '../../wire/index.js';
import type { ServedExport } from '../export/index.js';

export function ack(option: number): Uint8Array {
  return encodeOptionReply(option, OptionReply.ack);
}

/** A refusal, with a text for people. */
export function refuse(option: number, error: keyof typeof OptionError, why: string): Uint8Array {
  return encodeOptionReply(option, OptionError[error], encodeText(why, 'the reason'));
}

/** One line of a LIST. */
export function listed(option: number, found: ListedExport): Uint8Array {
  return encodeOptionReply(option, OptionReply.server, encodeListed(found));
}

export function metaContext(option: number, context: MetaContext): Uint8Array {
  return encodeOptionReply(option, OptionReply.metaContext, encodeMetaContext(context));
}

/** What is told of an export. */
type Told = Pick<ServedExport, 'name' | 'description' | 'size' | 'blockSizes'>;

/** The infos of an export: size and flags and block sizes always, texts where they are asked for. */
export function infos(
  option: number,
  { name, description, size, blockSizes }: Told,
  { flags, asked }: { flags: number; asked: readonly number[] },
): Uint8Array {
  const payloads = [encodeExportInfo({ size, flags }), encodeBlockSizes(blockSizes)];
  if (asked.includes(Info.name)) payloads.push(encodeTextInfo(Info.name, name));
  if (asked.includes(Info.description) && description !== '') {
    payloads.push(encodeTextInfo(Info.description, description));
  }
  return Buffer.concat(payloads.map((info) => encodeOptionReply(option, OptionReply.info, info)));
}
