/**
 * The server's side of the handshake, from the greeting to the choice of an export. It knows no socket.
 *
 *     greeting -> client flags -> { option -> answer }* -> GO or EXPORT_NAME -> transmission
 *                                                       -> ABORT             -> end
 *                                                       -> STARTTLS          -> the same again, in TLS
 *
 * What is agreed lives in one object that is made anew for TLS, so nothing that was said in plain text
 * survives STARTTLS ("NBD_OPT_STARTTLS": all state is reset).
 */
import { type Conversation, say, take } from '../../stream/index.js';
import {
  CLIENT_FLAGS_BYTES,
  decodeClientFlags,
  decodeOptionHeader,
  decodeText,
  encodeExportNameAnswer,
  encodeGreeting,
  HandshakeFlag,
  OPTION_BYTES,
  Option,
} from '../../wire/index.js';
import { violation } from '../failures/index.js';
import {
  MAX_DRAINED_BYTES,
  MAX_OPTION_BYTES,
  MAX_OPTIONS,
  OPTIONS_PER_EXPORT,
} from '../limits/index.js';
import {
  type Agreed,
  enterExport,
  type Offer,
  type OptionResult,
  type Outcome,
} from './agreement.js';
import { ack, refuse } from './option-answers.js';
import { answerOption } from './options.js';

/** From the first byte on. */
export function* negotiate(offer: Offer): Conversation<Outcome> {
  const zeroes = yield* greet();
  return yield* options(fresh(offer, false, zeroes));
}

/** After STARTTLS: there is no second greeting, and nothing of the first part counts. */
export function* negotiateInTls(offer: Offer, zeroes: boolean): Conversation<Outcome> {
  return yield* options(fresh(offer, true, zeroes));
}

function fresh(offer: Offer, secure: boolean, zeroes: boolean): Agreed {
  return { offer, secure, zeroes, structured: false, extended: false, contexts: undefined };
}

function* greet(): Conversation<boolean> {
  yield* say(encodeGreeting(HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes));
  const flags = decodeClientFlags(yield* take(CLIENT_FLAGS_BYTES));
  // A flag that is not known could change the meaning of all that follows ("Client flags").
  if (flags > (HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes)) {
    throw violation(`client flags 0x${flags.toString(16)}`);
  }
  return (flags & HandshakeFlag.noZeroes) === 0;
}

function* options(agreed: Agreed): Conversation<Outcome> {
  const most = MAX_OPTIONS + OPTIONS_PER_EXPORT * agreed.offer.exports.size;
  for (let count = 0; count < most; count++) {
    const header = decodeOptionHeader(yield* take(OPTION_BYTES));
    if (header === undefined) throw violation('an option without its magic number');
    const { answer, outcome } = yield* option(agreed, header.option, header.length);
    if (answer.length > 0) yield* say(answer);
    if (outcome !== undefined) return outcome;
  }
  throw violation(`more than ${most} options`);
}

function* option(agreed: Agreed, number: number, length: number): Conversation<OptionResult> {
  const payload = yield* optionPayload(number, length);
  const needsTls = agreed.offer.tls === 'require' && !agreed.secure;
  if (number === Option.exportName) {
    if (needsTls || payload === undefined)
      throw violation('NBD_OPT_EXPORT_NAME where it cannot be answered');
    return exportName(agreed, payload);
  }
  if (number === Option.abort) return { answer: ack(number), outcome: { type: 'end' } };
  if (needsTls && number !== Option.startTls) {
    return { answer: refuse(number, 'tlsRequired', 'start TLS first') };
  }
  // Every SET, one that fails included, ends what an earlier one was granted.
  if (number === Option.setMetaContext) agreed.contexts = undefined;
  if (payload === undefined) {
    return { answer: refuse(number, 'tooBig', `an option has at most ${MAX_OPTION_BYTES} bytes`) };
  }
  return answerOption(agreed, number, payload);
}

/** The payload; undefined where it is too long to be kept, and was read only to stay in step. */
function* optionPayload(number: number, length: number): Conversation<Uint8Array | undefined> {
  if (length <= MAX_OPTION_BYTES) return yield* take(length);
  if (length > MAX_DRAINED_BYTES) throw violation(`option ${number} with ${length} bytes`);
  for (let left = length; left > 0; left -= Math.min(left, MAX_OPTION_BYTES)) {
    yield* take(Math.min(left, MAX_OPTION_BYTES));
  }
  return undefined;
}

/** The oldest way in: it has no error reply, so a refusal is a hang-up. */
function exportName(agreed: Agreed, payload: Uint8Array): OptionResult {
  if (agreed.extended) throw violation('NBD_OPT_EXPORT_NAME behind NBD_OPT_EXTENDED_HEADERS');
  const name = decodeText(payload);
  const found = agreed.offer.exports.get(name);
  if (found === undefined) throw violation('NBD_OPT_EXPORT_NAME for an export that does not exist');
  const { structured, zeroes } = agreed;
  const info = { size: found.size, flags: found.flags(structured, false) };
  const answer = encodeExportNameAnswer(info, zeroes);
  return enterExport(agreed, found, answer);
}
