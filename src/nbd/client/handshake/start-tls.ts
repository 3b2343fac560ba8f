import { type Conversation, say, secure } from '../../stream/index.js';
import { tlsFailure } from '../../tls/index.js';
import { encodeOption, Option, OptionError, OptionReply } from '../../wire/index.js';
import { violation } from '../failures/index.js';
import type { Greeting } from './greeting.js';
import { optionReply, refusal } from './option-replies.js';

/**
 * Goes over to TLS ("NBD_OPT_STARTTLS"), as the first option of all: nothing that was agreed on in plain may
 * outlive it. Whatever answer but ACK ends the connection; to go on in plain is what somebody in between
 * would want us to do (CVE-2019-14842).
 */
export function* startTls(greeting: Greeting): Conversation<void> {
  if (!greeting.fixed)
    throw tlsFailure('the server is too old to know TLS; it was not used without');
  yield* say(encodeOption(Option.startTls));
  const answer = yield* optionReply(Option.startTls);
  if (answer.type === OptionReply.ack && answer.payload.length === 0) {
    yield* secure(() => violation('bytes in plain behind its agreement to TLS'));
    return;
  }
  if (answer.type === OptionError.policy || answer.type === OptionError.unsupported) {
    throw tlsFailure('the server does not offer TLS; it was not used without');
  }
  const { message } = refusal(answer, 'to start TLS');
  throw tlsFailure(answer.error ? message : `reply ${answer.type} to NBD_OPT_STARTTLS`);
}
