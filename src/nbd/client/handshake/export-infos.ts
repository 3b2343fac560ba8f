import { LacunaError } from '../../../errors/index.js';
import { SIZE_LIMIT } from '../../../util/index.js';
import type { Conversation } from '../../stream/index.js';
import {
  type BlockSizes,
  DEFAULT_MAX_PAYLOAD,
  decodeBlockSizes,
  decodeExportInfo,
  decodeTextInfo,
  ExportFlag,
  type ExportInfo,
  Info,
  infoType,
  OptionReply,
} from '../../wire/index.js';
import { violation } from '../failures/index.js';
import { type OptionAnswer, optionReply } from './option-replies.js';

/** More infos or contexts in one answer than any server has reason to send. */
export const MAX_REPLIES = 1024;

/** What the handshake settles of an export. */
export interface Chosen {
  readonly size: number;
  readonly flags: number;
  readonly blockSizes: BlockSizes;
  /** The server told its block sizes; they are rules then, and not only good manners. */
  readonly blockSizesTold: boolean;
}

/** What a server tells of an export beside. */
export interface Words {
  /** Its name, where the server calls it something else than we did. */
  readonly name?: string;
  readonly description?: string;
}

/** The replies to INFO or GO; the error among them, where the server refused. */
export function* readInfos(option: number): Conversation<(Chosen & Words) | OptionAnswer> {
  let info: ExportInfo | undefined;
  let sizes: BlockSizes | undefined;
  const words: { name?: string; description?: string } = {};
  for (let count = 0; count <= MAX_REPLIES; count++) {
    const answer = yield* optionReply(option);
    if (answer.error) return answer;
    if (answer.type === OptionReply.ack) {
      if (info === undefined) throw violation(`no NBD_INFO_EXPORT before the end of ${option}`);
      return { ...settle(info, sizes), ...words };
    }
    const { payload } = answer;
    const type = typeOf(answer, option);
    // Others are to be ignored: they were not asked for, or are not invented yet.
    if (type === Info.export) info = exportInfo(payload);
    if (type === Info.blockSize) sizes = blockSizes(payload);
    if (type === Info.name) words.name = decodeTextInfo(payload);
    if (type === Info.description) words.description = decodeTextInfo(payload);
  }
  throw violation(`more than ${MAX_REPLIES} replies to option ${option}`);
}

/** @throws LacunaError ERR_NBD_UNSUPPORTED for an export that is too large; ERR_NBD_PROTOCOL. */
export function settle(info: ExportInfo, sizes: BlockSizes | undefined): Chosen {
  if (info.size > Number.MAX_SAFE_INTEGER) {
    throw new LacunaError(
      'ERR_NBD_UNSUPPORTED',
      `the export is larger than ${SIZE_LIMIT}, the most that Lacuna handles`,
    );
  }
  // Until 2022 the document let a small export, which cannot have a preferred block, have a small maximum.
  if (sizes !== undefined && sizes.maximum < Math.min(sizes.preferred, info.size)) {
    throw violation(`a maximum of ${sizes.maximum} bytes below the preferred ${sizes.preferred}`);
  }
  const flags = info.flags & ExportFlag.hasFlags ? info.flags : 0;
  const blockSizesTold = sizes !== undefined;
  return { size: info.size, flags, blockSizes: sizes ?? assumedSizes(info.size), blockSizesTold };
}

/** "Block size constraints": a client that was told none should keep to 512, where the size allows. */
function assumedSizes(size: number): BlockSizes {
  const minimum = size % 512 === 0 ? 512 : 1;
  return { minimum, preferred: 4096, maximum: DEFAULT_MAX_PAYLOAD };
}

function typeOf({ type, payload }: OptionAnswer, option: number): number {
  const info = type === OptionReply.info ? infoType(payload) : undefined;
  if (info === undefined) throw violation(`reply ${type} to option ${option}`);
  return info;
}

function exportInfo(payload: Uint8Array): ExportInfo {
  const info = decodeExportInfo(payload);
  if (info === undefined) throw violation(`NBD_INFO_EXPORT of ${payload.length} bytes`);
  return info;
}

function blockSizes(payload: Uint8Array): BlockSizes {
  const sizes = decodeBlockSizes(payload);
  if (sizes === undefined) throw violation('NBD_INFO_BLOCK_SIZE with sizes that break its rules');
  return sizes;
}
