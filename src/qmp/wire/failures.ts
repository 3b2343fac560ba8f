import { LacunaError } from '../../errors/index.js';

/** The peer said something that the protocol does not allow; `what` begins with "it". */
export function protocolError(what: string, cause?: unknown): LacunaError {
  return new LacunaError(
    'ERR_QMP_PROTOCOL',
    `the peer does not speak QMP as it should: ${what}; is this the socket of a monitor or of a guest agent?`,
    { cause },
  );
}

const LONGEST = 500;

/** Text of a peer, as a message may show it: without control characters, and not endless. */
export function shown(text: string): string {
  const plain = text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, ' ');
  return plain.length > LONGEST ? `${plain.slice(0, LONGEST)}...` : plain;
}
