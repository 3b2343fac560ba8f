import { viewOf } from '../../util/index.js';
import { type Conversation, say } from '../stream/index.js';
import { decodeText, encodeContextQuery, encodeOption, OptionReply } from '../wire/index.js';
import { MAX_REPLIES } from './export-infos.js';
import { violation } from './failures.js';
import { type OptionAnswer, optionReply } from './option-replies.js';

/** A granted metadata context and the id that block status replies use for it. */
export interface GrantedContext {
  readonly id: number;
  readonly name: string;
}

/**
 * Sends LIST_META_CONTEXT or SET_META_CONTEXT and reads what there is, or what is granted. A refusal is not
 * told apart from nothing: what is asked next will say what is wrong with the export.
 */
export function* askContexts(
  option: number,
  exportName: string,
  queries: readonly string[],
): Conversation<GrantedContext[]> {
  yield* say(encodeOption(option, encodeContextQuery(exportName, queries)));
  const found: GrantedContext[] = [];
  while (found.length <= MAX_REPLIES) {
    const answer = yield* optionReply(option);
    if (answer.type === OptionReply.ack) return found;
    if (answer.error) return [];
    found.push(decodeContext(answer, option));
  }
  throw violation(`more than ${MAX_REPLIES} metadata contexts`);
}

/** @throws LacunaError ERR_NBD_PROTOCOL where two contexts could not be told apart later. */
export function checkDistinct(contexts: readonly GrantedContext[]): void {
  const seen = new Set<number | string>();
  for (const { id, name } of contexts) {
    if (seen.has(id) || seen.has(name)) {
      throw violation(`the metadata context ${JSON.stringify(name)} (${id}) was granted twice`);
    }
    seen.add(id).add(name);
  }
}

function decodeContext({ type, payload }: OptionAnswer, option: number): GrantedContext {
  if (type !== OptionReply.metaContext || payload.length < 5) {
    throw violation(`reply ${type} to option ${option}`);
  }
  return { id: viewOf(payload).getUint32(0), name: decodeText(payload.subarray(4)) };
}
