import { LacunaError } from '../../../errors/index.js';
import { type Conversation, say } from '../../stream/index.js';
import {
  decodeListed,
  encodeOption,
  type ListedExport,
  Option,
  OptionReply,
} from '../../wire/index.js';
import { violation } from '../failures/index.js';
import { greet } from './greeting.js';
import { type OptionAnswer, optionReply, refusal } from './option-replies.js';
import { startTls } from './start-tls.js';

const MAX_EXPORTS = 65536;
/** Of all replies together, which are kept: a server with so many exports has short names. */
const MAX_LIST_BYTES = 32 * 1024 * 1024;

/** Asks which exports there are ("NBD_OPT_LIST") and takes leave. */
export function* listExports(options: { tls?: boolean } = {}): Conversation<ListedExport[]> {
  const greeting = yield* greet();
  if (options.tls) yield* startTls(greeting);
  if (!greeting.fixed) {
    throw new LacunaError('ERR_NBD_UNSUPPORTED', 'the server is too old to list its exports');
  }
  const found = yield* askExports();
  // The reply to ABORT need not be awaited: either side may hang up at once.
  yield* say(encodeOption(Option.abort));
  return found;
}

/** The exports that there are, for a message; none where the server does not tell. */
export function* exportsThereAre(): Conversation<string[]> {
  try {
    const found = yield* askExports();
    return found.map(({ name }) => name);
  } catch (error) {
    // A caller who gives up, and a limit of time, end all of it.
    if (['ERR_ABORTED', 'ERR_TIMEOUT'].includes((error as LacunaError).code)) throw error;
    return [];
  }
}

function* askExports(): Conversation<ListedExport[]> {
  yield* say(encodeOption(Option.list));
  const found: ListedExport[] = [];
  let bytes = 0;
  while (found.length <= MAX_EXPORTS && bytes <= MAX_LIST_BYTES) {
    const answer = yield* optionReply(Option.list);
    bytes += answer.payload.length;
    if (answer.error) throw refusal(answer, 'to list its exports');
    if (answer.type === OptionReply.ack) return found;
    found.push(listed(answer));
  }
  throw violation(`more than ${MAX_EXPORTS} exports, or ${MAX_LIST_BYTES} bytes of them`);
}

function listed({ type, payload }: OptionAnswer): ListedExport {
  if (type !== OptionReply.server) throw violation(`reply ${type} to NBD_OPT_LIST`);
  const found = decodeListed(payload);
  if (found === undefined) throw violation('an export name longer than its reply');
  return found;
}
