import { type Conversation, say } from '../../stream/index.js';
import {
  decodeMetaContext,
  encodeContextQuery,
  encodeOption,
  type MetaContext,
  OptionReply,
} from '../../wire/index.js';
import { violation } from '../failures/index.js';
import { MAX_REPLIES } from './export-infos.js';
import { type OptionAnswer, optionReply } from './option-replies.js';

/**
 * Sends LIST_META_CONTEXT or SET_META_CONTEXT and reads what there is, or what is granted. A refusal is not
 * told apart from nothing: what is asked next will say what is wrong with the export.
 */
export function* askContexts(
  option: number,
  exportName: string,
  queries: readonly string[],
): Conversation<MetaContext[]> {
  yield* say(encodeOption(option, encodeContextQuery(exportName, queries)));
  const found: MetaContext[] = [];
  while (found.length <= MAX_REPLIES) {
    const answer = yield* optionReply(option);
    if (answer.type === OptionReply.ack) return found;
    if (answer.error) return [];
    found.push(context(answer, option));
  }
  throw violation(`more than ${MAX_REPLIES} metadata contexts`);
}

/** @throws LacunaError ERR_NBD_PROTOCOL where two contexts could not be told apart later. */
export function checkDistinct(contexts: readonly MetaContext[]): void {
  const seen = new Set<number | string>();
  for (const { id, name } of contexts) {
    if (seen.has(id) || seen.has(name)) {
      throw violation(`the metadata context ${JSON.stringify(name)} (${id}) was granted twice`);
    }
    seen.add(id).add(name);
  }
}

function context({ type, payload }: OptionAnswer, option: number): MetaContext {
  const found = type === OptionReply.metaContext ? decodeMetaContext(payload) : undefined;
  if (found === undefined) throw violation(`reply ${type} to option ${option}`);
  return found;
}
