import { LacunaError } from '../../errors/index.js';
import { viewOf } from '../../util/index.js';
import { type Conversation, say, take } from '../stream/index.js';
import { HandshakeFlag, NBD_MAGIC, OLDSTYLE_MAGIC, OPTION_MAGIC } from '../wire/index.js';
import { violation } from './failures.js';

/** How the server speaks. */
export interface Greeting {
  /** Options other than EXPORT_NAME may be asked ("fixed newstyle"). */
  readonly fixed: boolean;
  /** EXPORT_NAME's answer comes without its 124 zeroes. */
  readonly noZeroes: boolean;
}

/**
 * Reads the server's greeting and answers its flags. A client may echo only flags that were offered, and
 * ignores those that it does not know ("Newstyle negotiation").
 */
export function* greet(): Conversation<Greeting> {
  if (viewOf(yield* take(8)).getBigUint64(0) !== NBD_MAGIC) {
    throw violation('it does not begin with NBDMAGIC; is this an NBD server?');
  }
  const magic = viewOf(yield* take(8)).getBigUint64(0);
  if (magic === OLDSTYLE_MAGIC) {
    throw new LacunaError(
      'ERR_NBD_UNSUPPORTED',
      'the server speaks the oldstyle handshake, which has no export names and no options; ' +
        'start it in newstyle mode',
    );
  }
  if (magic !== OPTION_MAGIC) throw violation('an unknown magic number in its greeting');
  const offered = viewOf(yield* take(2)).getUint16(0);
  const flags = offered & (HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes);
  const answer = new Uint8Array(4);
  viewOf(answer).setUint32(0, flags);
  yield* say(answer);
  return {
    fixed: (flags & HandshakeFlag.fixedNewstyle) !== 0,
    noZeroes: (flags & HandshakeFlag.noZeroes) !== 0,
  };
}
