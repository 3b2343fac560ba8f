/** What the server answers to each option, given what was agreed before. */
import { Context } from '../../../extent/index.js';
import { decodeContextQuery, decodeInfoQuery, Option } from '../../wire/index.js';
import type { ServedContext, ServedExport } from '../export/index.js';
import { type Agreed, enterExport, type OptionResult } from './agreement.js';
import { ack, infos, listed, metaContext, refuse } from './option-answers.js';

type Answer = (agreed: Agreed, option: number, payload: Uint8Array) => OptionResult;

const ANSWERS: Readonly<Record<number, Answer>> = {
  [Option.list]: list,
  [Option.startTls]: startTls,
  [Option.info]: info,
  [Option.go]: info,
  [Option.structuredReply]: structuredReply,
  [Option.listMetaContext]: metaContexts,
  [Option.setMetaContext]: metaContexts,
  [Option.extendedHeaders]: extendedHeaders,
};

export function answerOption(agreed: Agreed, option: number, payload: Uint8Array): OptionResult {
  const answer = ANSWERS[option];
  if (answer === undefined) return { answer: refuse(option, 'unsupported', 'not known here') };
  return answer(agreed, option, payload);
}

function list({ offer }: Agreed, option: number, payload: Uint8Array): OptionResult {
  if (payload.length > 0) return invalid(option, 'NBD_OPT_LIST has no payload');
  const lines = [...offer.exports.values()].map((each) => listed(option, each));
  return { answer: join([...lines, ack(option)]) };
}

function startTls(
  { offer, secure, zeroes }: Agreed,
  option: number,
  payload: Uint8Array,
): OptionResult {
  if (payload.length > 0) return invalid(option, 'NBD_OPT_STARTTLS has no payload');
  if (secure) return invalid(option, 'TLS has started already');
  if (offer.tls === 'off') return { answer: refuse(option, 'policy', 'this server has no TLS') };
  return { answer: ack(option), outcome: { type: 'starttls', zeroes } };
}

function info(agreed: Agreed, option: number, payload: Uint8Array): OptionResult {
  const query = decodeInfoQuery(payload);
  if (query === undefined) return invalid(option, 'its payload does not add up');
  const found = agreed.offer.exports.get(query.exportName);
  if (found === undefined) return unknown(option);
  const flags = found.flags(agreed.structured || agreed.extended, agreed.extended);
  const answer = join([infos(option, found, { flags, asked: query.infos }), ack(option)]);
  return option === Option.go ? enterExport(agreed, found, answer) : { answer };
}

function structuredReply(agreed: Agreed, option: number, payload: Uint8Array): OptionResult {
  if (payload.length > 0) return invalid(option, 'NBD_OPT_STRUCTURED_REPLY has no payload');
  if (agreed.extended) {
    return { answer: refuse(option, 'extendedHeadersRequired', 'extended headers were agreed on') };
  }
  if (agreed.structured) return invalid(option, 'structured replies were agreed on already');
  agreed.structured = true;
  return { answer: ack(option) };
}

function extendedHeaders(agreed: Agreed, option: number, payload: Uint8Array): OptionResult {
  if (payload.length > 0) return invalid(option, 'NBD_OPT_EXTENDED_HEADERS has no payload');
  if (agreed.extended) return invalid(option, 'extended headers were agreed on already');
  agreed.extended = true;
  return { answer: ack(option) };
}

function metaContexts(agreed: Agreed, option: number, payload: Uint8Array): OptionResult {
  const set = option === Option.setMetaContext;
  if (!agreed.structured && !agreed.extended) {
    return invalid(option, 'contexts need structured replies; agree on them first');
  }
  const query = decodeContextQuery(payload);
  if (query === undefined) return invalid(option, 'its payload does not add up');
  const found = agreed.offer.exports.get(query.exportName);
  if (found === undefined) return unknown(option);
  const granted = set ? exactly(found, query.queries) : matching(found, query.queries);
  if (set) agreed.contexts = { exportName: query.exportName, granted };
  return { answer: join([...granted.map((each) => metaContext(option, each)), ack(option)]) };
}

/** SET: names and nothing but names; a context that is named twice is granted once. */
function exactly(found: ServedExport, queries: readonly string[]): ServedContext[] {
  const names = new Set(queries);
  return found.contexts.filter(({ name }) => names.has(name));
}

/** LIST: no query asks for all, and a namespace asks for what is in it. */
function matching(found: ServedExport, queries: readonly string[]): readonly ServedContext[] {
  if (queries.length === 0) return found.contexts;
  const names = new Set(queries);
  const namespaces = ['base:', 'qemu:', Context.dirtyPrefix].filter((each) => names.has(each));
  return found.contexts.filter(
    ({ name }) => names.has(name) || namespaces.some((namespace) => name.startsWith(namespace)),
  );
}

function invalid(option: number, why: string): OptionResult {
  return { answer: refuse(option, 'invalid', why) };
}

function unknown(option: number): OptionResult {
  return { answer: refuse(option, 'unknown', 'there is no export of this name') };
}

function join(parts: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat(parts);
}
