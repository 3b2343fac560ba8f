import { type ErrorCode, LacunaError } from '../../../errors/index.js';
import { type Conversation, take } from '../../stream/index.js';
import {
  decodeOptionReplyHeader,
  decodeText,
  isOptionError,
  MAX_STRING_BYTES,
  OPTION_REPLY_BYTES,
  OptionError,
  printable,
} from '../../wire/index.js';
import { violation } from '../failures/index.js';

/** One reply to an option. */
export interface OptionAnswer {
  readonly type: number;
  /** Whether the type is an error; the payload is then text for people. */
  readonly error: boolean;
  readonly payload: Uint8Array;
}

/** The longest legal reply, an export with its description, with room for what is still to be invented. */
const MAX_REPLY_BYTES = 4 * MAX_STRING_BYTES;

/** Reads one reply to `option`, the only one that is outstanding. */
export function* optionReply(option: number): Conversation<OptionAnswer> {
  const header = decodeOptionReplyHeader(yield* take(OPTION_REPLY_BYTES));
  if (header === undefined) throw violation('an option reply without its magic number');
  const { option: echoed, type, length } = header;
  if (echoed !== option) throw violation(`a reply to option ${echoed} when ${option} was asked`);
  if (length > MAX_REPLY_BYTES) throw violation(`an option reply of ${length} bytes`);
  return { type, error: isOptionError(type), payload: yield* take(length) };
}

/** What each refusal means to us: an error code, and words for people. */
const REFUSALS: Readonly<Record<number, readonly [ErrorCode, string]>> = {
  [OptionError.unsupported]: ['ERR_NBD_UNSUPPORTED', 'it does not know how'],
  [OptionError.policy]: ['ERR_DEVICE_OPEN', 'its policy forbids it'],
  [OptionError.invalid]: ['ERR_DEVICE_OPEN', 'it calls the request invalid'],
  [OptionError.platform]: ['ERR_NBD_UNSUPPORTED', 'its platform cannot'],
  [OptionError.tlsRequired]: ['ERR_NBD_TLS', 'it requires TLS; name it by an nbds:// URI'],
  [OptionError.unknown]: ['ERR_DEVICE_OPEN', 'it has no such export'],
  [OptionError.shutdown]: ['ERR_NBD_DISCONNECTED', 'it is shutting down'],
  [OptionError.blockSizeRequired]: ['ERR_NBD_UNSUPPORTED', 'it insists on block sizes'],
  [OptionError.tooBig]: ['ERR_DEVICE_OPEN', 'it calls the request too big'],
  [OptionError.extendedHeadersRequired]: [
    'ERR_NBD_UNSUPPORTED',
    'it requires extended headers, which were not asked for or agreed on',
  ],
};

const MOST_NAMES = 20;

/** What there is, in words to stand behind "it has"; the first of them where there are many. */
export function namesOf(names: readonly string[]): string {
  if (names.length === 0) return 'none';
  const shown = names.slice(0, MOST_NAMES).map((name) => JSON.stringify(name));
  const more = names.length - shown.length;
  return more > 0 ? `${shown.join(', ')} and ${more} more` : shown.join(', ');
}

/**
 * The error for an option that was refused; the server's own text is part of the message.
 *
 * @param there what it has instead, where that is known
 */
export function refusal(
  answer: OptionAnswer,
  what: string,
  there: readonly string[] = [],
): LacunaError {
  const [code, why] = REFUSALS[answer.type] ?? [
    'ERR_DEVICE_OPEN',
    `error 0x${answer.type.toString(16)}`,
  ];
  const text = printable(decodeText(answer.payload));
  const quoted = text === '' ? '' : ` ("${text}")`;
  const instead = there.length > 0 ? `; it has: ${namesOf(there)}` : '';
  return new LacunaError(code, `the server refused ${what}: ${why}${quoted}${instead}`, {
    retryable: answer.type === OptionError.shutdown,
  });
}
