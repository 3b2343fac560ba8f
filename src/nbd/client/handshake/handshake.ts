/**
 * The client's side of the handshake: greeting, then options, each asked and answered in turn, until GO
 * (or EXPORT_NAME with an old server) starts the transmission. Sequence:
 *
 *     greeting -> [STARTTLS] -> EXTENDED_HEADERS or STRUCTURED_REPLY -> SET_META_CONTEXT -> GO
 *
 * Every step that a server refuses costs only what it would have given, except STARTTLS and GO.
 */

import { LacunaError } from '../../../errors/index.js';
import { Context } from '../../../extent/index.js';
import { type Conversation, say, take } from '../../stream/index.js';
import {
  decodeExportNameAnswer,
  EXPORT_NAME_BYTES,
  EXPORT_NAME_ZEROES,
  encodeInfoQuery,
  encodeOption,
  encodeText,
  Info,
  type MetaContext,
  Option,
  OptionError,
  OptionReply,
} from '../../wire/index.js';
import { violation } from '../failures/index.js';
import { type Chosen, readInfos, settle } from './export-infos.js';
import { type Greeting, greet } from './greeting.js';
import { exportsThereAre } from './list.js';
import { askContexts, checkDistinct } from './meta-contexts.js';
import { namesOf, optionReply, refusal } from './option-replies.js';
import { startTls } from './start-tls.js';

export interface HandshakeOptions {
  readonly export: string;
  /** Contexts beside `base:allocation`; each must be granted. */
  readonly contexts: readonly string[];
  /** Ask for `base:allocation` too. Default true. */
  readonly allocation?: boolean;
  /** Say nothing but STARTTLS before TLS stands. */
  readonly tls?: boolean;
  /** Ask for extended headers. Default true. */
  readonly extended?: boolean;
}

/** What the two sides agreed on. */
export interface Agreement extends Chosen {
  readonly structured: boolean;
  /** Lengths have 64 bits; comes with structured replies. */
  readonly extended: boolean;
  readonly contexts: readonly MetaContext[];
}

export function* handshake(options: HandshakeOptions): Conversation<Agreement> {
  const { export: name, contexts: wanted } = options;
  const greeting = yield* greet();
  if (options.tls) yield* startTls(greeting);
  const mayExtend = greeting.fixed && options.extended !== false;
  const extended = mayExtend && (yield* ask(Option.extendedHeaders));
  const structured = extended || (greeting.fixed && (yield* ask(Option.structuredReply)));
  const queries = options.allocation === false ? wanted : [Context.allocation, ...wanted];
  const contexts =
    structured && queries.length > 0
      ? yield* askContexts(Option.setMetaContext, name, queries)
      : [];
  checkDistinct(contexts);
  const missing = wanted.find((context) => !contexts.some(({ name: has }) => has === context));
  // Now, for once an export is entered, nothing can be asked about it.
  const there =
    missing !== undefined && structured ? yield* askContexts(Option.listMetaContext, name, []) : [];
  const chosen = yield* enterExport(name, greeting, options.tls === true || extended);
  if (missing !== undefined) throw contextUnknown(missing, name, structured && there);
  return { structured, extended, contexts, ...chosen };
}

/** An option without payload that a server takes or does not. */
export function* ask(option: number): Conversation<boolean> {
  yield* say(encodeOption(option));
  const answer = yield* optionReply(option);
  if (answer.type === OptionReply.ack) return true;
  if (answer.error) return false;
  throw violation(`reply ${answer.type} to option ${option}`);
}

/** @param knowsGo with TLS and with extended headers no server is too old for GO; the latter forbid EXPORT_NAME. */
function* enterExport(name: string, greeting: Greeting, knowsGo: boolean): Conversation<Chosen> {
  const { fixed, noZeroes } = greeting;
  if (!fixed) return yield* exportName(name, noZeroes);
  yield* say(encodeOption(Option.go, encodeInfoQuery(name, [Info.blockSize])));
  const told = yield* readInfos(Option.go);
  if ('size' in told) {
    const { size, flags, blockSizes, blockSizesTold } = told;
    return { size, flags, blockSizes, blockSizesTold };
  }
  const mayBeOld = told.type === OptionError.unsupported && !knowsGo;
  if (mayBeOld) return yield* exportName(name, noZeroes);
  const isUnknown = told.type === OptionError.unknown;
  const there = isUnknown ? yield* exportsThereAre() : [];
  throw refusal(told, `the export ${JSON.stringify(name)}`, there);
}

/** The oldest way in; it has no error reply, a server that refuses just hangs up. */
function* exportName(name: string, noZeroes: boolean): Conversation<Chosen> {
  yield* say(encodeOption(Option.exportName, encodeText(name, 'the export name')));
  let bytes: Uint8Array;
  try {
    bytes = yield* take(EXPORT_NAME_BYTES);
  } catch (cause) {
    // A caller who gives up, and a limit of time, say nothing of the export.
    if ((cause as LacunaError).code !== 'ERR_NBD_DISCONNECTED') throw cause;
    throw new LacunaError(
      'ERR_DEVICE_OPEN',
      `the server hung up when asked for the export ${JSON.stringify(name)}: it may not exist`,
      { cause },
    );
  }
  if (!noZeroes) yield* take(EXPORT_NAME_ZEROES);
  return settle(decodeExportNameAnswer(bytes), undefined);
}

/** @param there what the server has; false where it cannot have any */
function contextUnknown(
  name: string,
  exportName: string,
  there: readonly MetaContext[] | false,
): LacunaError {
  const why = there
    ? `it has: ${namesOf(there.map((one) => one.name))}`
    : 'it has no structured replies';
  return new LacunaError(
    'ERR_CONTEXT_UNKNOWN',
    `the server does not grant the metadata context ${JSON.stringify(name)} ` +
      `for the export ${JSON.stringify(exportName)}: ${why}`,
  );
}
