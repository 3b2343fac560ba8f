/**
 * The client's side of the handshake: greeting, then options, each asked and answered in turn, until GO
 * (or EXPORT_NAME with an old server) starts the transmission. Sequence:
 *
 *     greeting -> [STARTTLS] -> STRUCTURED_REPLY -> SET_META_CONTEXT -> GO -> transmission
 *
 * Every step that a server refuses costs only what it would have given, except STARTTLS and GO.
 */
import { LacunaError } from '../../errors/index.js';
import { Context } from '../../extent/index.js';
import {
  DEFAULT_MAX_PAYLOAD,
  ExportFlag,
  Info,
  Option,
  OptionError,
  OptionReply,
} from '../wire/constants.js';
import {
  type BlockSizes,
  decodeBlockSizes,
  decodeExportInfo,
  type ExportInfo,
  encodeContextQuery,
  encodeInfoQuery,
  encodeOption,
  viewOf,
} from '../wire/options.js';
import { decodeText, encodeText } from '../wire/text.js';
import { type Conversation, say, take } from './dialogue.js';
import { violation } from './failures.js';
import { type Greeting, greet } from './greeting.js';
import { type OptionAnswer, optionReply, refusal } from './option-replies.js';
import { startTls } from './start-tls.js';

export interface HandshakeOptions {
  readonly export: string;
  /** Contexts beside `base:allocation`; each must be granted. */
  readonly contexts: readonly string[];
  /** Say nothing but STARTTLS before TLS stands. */
  readonly tls?: boolean;
}

/** A granted metadata context and the id that block status replies use for it. */
export interface GrantedContext {
  readonly id: number;
  readonly name: string;
}

/** What the two sides agreed on. */
export interface Agreement {
  readonly size: number;
  readonly flags: number;
  readonly structured: boolean;
  readonly contexts: readonly GrantedContext[];
  readonly blockSizes: BlockSizes;
}

/** More infos or contexts in one answer than any server has reason to send. */
const MAX_REPLIES = 1024;

export function* handshake(options: HandshakeOptions): Conversation<Agreement> {
  const greeting = yield* greet();
  if (options.tls) yield* startTls(greeting);
  const structured = greeting.fixed && (yield* askStructuredReplies());
  const contexts = structured ? yield* askContexts(options) : [];
  const chosen = yield* enterExport(options, greeting);
  for (const name of options.contexts) {
    if (!contexts.some((context) => context.name === name)) {
      throw contextUnknown(name, options.export, structured);
    }
  }
  return { structured, contexts, ...chosen };
}

function* askStructuredReplies(): Conversation<boolean> {
  yield* say(encodeOption(Option.structuredReply));
  const answer = yield* optionReply(Option.structuredReply);
  if (answer.type === OptionReply.ack) return true;
  if (answer.error) return false;
  throw violation(`reply ${answer.type} to NBD_OPT_STRUCTURED_REPLY`);
}

/** A refusal is not told apart from an empty grant: GO will say what is wrong with the export. */
function* askContexts(options: HandshakeOptions): Conversation<GrantedContext[]> {
  const queries = [Context.allocation, ...options.contexts];
  yield* say(encodeOption(Option.setMetaContext, encodeContextQuery(options.export, queries)));
  const granted: GrantedContext[] = [];
  while (granted.length <= MAX_REPLIES) {
    const answer = yield* optionReply(Option.setMetaContext);
    if (answer.type === OptionReply.ack) return granted;
    if (answer.error) return [];
    granted.push(decodeContext(answer, granted));
  }
  throw violation(`more than ${MAX_REPLIES} metadata contexts`);
}

function decodeContext(answer: OptionAnswer, granted: readonly GrantedContext[]): GrantedContext {
  if (answer.type !== OptionReply.metaContext || answer.payload.length < 5) {
    throw violation(`reply ${answer.type} to NBD_OPT_SET_META_CONTEXT`);
  }
  const id = viewOf(answer.payload).getUint32(0);
  const name = decodeText(answer.payload.subarray(4));
  if (granted.some((other) => other.id === id || other.name === name)) {
    throw violation(`the metadata context ${JSON.stringify(name)} (${id}) was granted twice`);
  }
  return { id, name };
}

type Chosen = Pick<Agreement, 'size' | 'flags' | 'blockSizes'>;

function* enterExport(options: HandshakeOptions, greeting: Greeting): Conversation<Chosen> {
  const { export: name, tls } = options;
  if (!greeting.fixed) return yield* exportName(name, greeting);
  yield* say(encodeOption(Option.go, encodeInfoQuery(name, [Info.blockSize])));
  let info: ExportInfo | undefined;
  let sizes: BlockSizes | undefined;
  for (let count = 0; count <= MAX_REPLIES; count++) {
    const answer = yield* optionReply(Option.go);
    // Whoever speaks TLS knows GO; EXPORT_NAME would only be a way to make us do without its answers.
    if (answer.type === OptionError.unsupported && !tls) return yield* exportName(name, greeting);
    if (answer.error) throw refusal(answer, `the export ${JSON.stringify(name)}`);
    if (answer.type === OptionReply.ack) {
      if (info === undefined) throw violation('no NBD_INFO_EXPORT before the end of NBD_OPT_GO');
      return settle(info, sizes);
    }
    const view = infoView(answer);
    const type = view.getUint16(0);
    if (type === Info.export) info = exportInfo(view);
    if (type === Info.blockSize) sizes = blockSizes(view);
  }
  throw violation(`more than ${MAX_REPLIES} replies to NBD_OPT_GO`);
}

function infoView(answer: OptionAnswer): DataView {
  if (answer.type !== OptionReply.info || answer.payload.length < 2) {
    throw violation(`reply ${answer.type} to NBD_OPT_GO`);
  }
  return viewOf(answer.payload);
}

function exportInfo(view: DataView): ExportInfo {
  if (view.byteLength !== 12) throw violation(`NBD_INFO_EXPORT of ${view.byteLength} bytes`);
  return decodeExportInfo(view, 2);
}

function blockSizes(view: DataView): BlockSizes {
  const sizes = decodeBlockSizes(view);
  if (sizes === undefined) throw violation('NBD_INFO_BLOCK_SIZE with sizes that break its rules');
  return sizes;
}

/** The oldest way in; it has no error reply, a server that refuses just hangs up. */
function* exportName(name: string, greeting: Greeting): Conversation<Chosen> {
  yield* say(encodeOption(Option.exportName, encodeText(name, 'the export name')));
  let bytes: Uint8Array;
  try {
    bytes = yield* take(10);
  } catch (cause) {
    throw new LacunaError(
      'ERR_DEVICE_OPEN',
      `the server hung up when asked for the export ${JSON.stringify(name)}: it may not exist`,
      { cause },
    );
  }
  if (!greeting.noZeroes) yield* take(124);
  return settle(decodeExportInfo(viewOf(bytes), 0), undefined);
}

function settle(info: ExportInfo, sizes: BlockSizes | undefined): Chosen {
  if (info.size > Number.MAX_SAFE_INTEGER) {
    throw new LacunaError(
      'ERR_NBD_UNSUPPORTED',
      `the export is larger than ${Number.MAX_SAFE_INTEGER} bytes (8 PiB), the most that Lacuna handles`,
    );
  }
  const flags = info.flags & ExportFlag.hasFlags ? info.flags : 0;
  return { size: info.size, flags, blockSizes: sizes ?? assumedSizes(info.size) };
}

/** "Block size constraints": a client that was told none should keep to 512, where the size allows. */
function assumedSizes(size: number): BlockSizes {
  const minimum = size % 512 === 0 ? 512 : 1;
  return { minimum, preferred: 4096, maximum: DEFAULT_MAX_PAYLOAD };
}

function contextUnknown(name: string, exportName: string, structured: boolean): LacunaError {
  const why = structured ? 'it does not have it' : 'it has no structured replies';
  return new LacunaError(
    'ERR_CONTEXT_UNKNOWN',
    `the server does not grant the metadata context ${JSON.stringify(name)} ` +
      `for the export ${JSON.stringify(exportName)}: ${why}`,
  );
}
