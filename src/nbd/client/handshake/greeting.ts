import { LacunaError } from '../../../errors/index.js';
import { type Conversation, say, take } from '../../stream/index.js';
import {
  decodeHandshakeFlags,
  decodeStyle,
  encodeClientFlags,
  HANDSHAKE_FLAGS_BYTES,
  HandshakeFlag,
  isNbdMagic,
  MAGIC_BYTES,
} from '../../wire/index.js';
import { violation } from '../failures/index.js';

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
  if (!isNbdMagic(yield* take(MAGIC_BYTES))) {
    throw violation('it does not begin with NBDMAGIC; is this an NBD server?');
  }
  const style = decodeStyle(yield* take(MAGIC_BYTES));
  if (style === 'oldstyle') {
    throw new LacunaError(
      'ERR_NBD_UNSUPPORTED',
      'the server speaks the oldstyle handshake, which has no export names and no options; ' +
        'start it in newstyle mode',
    );
  }
  if (style !== 'newstyle') throw violation('an unknown magic number in its greeting');
  const offered = decodeHandshakeFlags(yield* take(HANDSHAKE_FLAGS_BYTES));
  const flags = offered & (HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes);
  yield* say(encodeClientFlags(flags));
  return {
    fixed: (flags & HandshakeFlag.fixedNewstyle) !== 0,
    noZeroes: (flags & HandshakeFlag.noZeroes) !== 0,
  };
}
