import { LacunaError } from '../../errors/index.js';
import { viewOf } from '../../util/index.js';
import { type Conversation, say } from '../stream/index.js';
import { decodeText, encodeOption, Option, OptionReply } from '../wire/index.js';
import { violation } from './failures.js';
import { greet } from './greeting.js';
import { type OptionAnswer, optionReply, refusal } from './option-replies.js';
import { startTls } from './start-tls.js';

/** An export that a server offers. */
export interface ListedExport {
  /** What to ask for; empty for the default export. */
  readonly name: string;
  /** The server's words about it; empty where it has none. */
  readonly description: string;
}

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
    found.push(decodeListed(answer));
  }
  throw violation(`more than ${MAX_EXPORTS} exports, or ${MAX_LIST_BYTES} bytes of them`);
}

function decodeListed({ type, payload }: OptionAnswer): ListedExport {
  if (type !== OptionReply.server || payload.length < 4) {
    throw violation(`reply ${type} to NBD_OPT_LIST`);
  }
  const length = viewOf(payload).getUint32(0);
  if (length > payload.length - 4) throw violation('an export name longer than its reply');
  return {
    name: decodeText(payload.subarray(4, 4 + length)),
    description: decodeText(payload.subarray(4 + length)),
  };
}
