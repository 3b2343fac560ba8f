/** How the two sides begin: the server's greeting, and the flags that the client answers ("Newstyle negotiation"). */
import { viewOf } from '../../util/index.js';
import { NBD_MAGIC, OLDSTYLE_MAGIC, OPTION_MAGIC } from './constants.js';

/** Bytes of each of the two magic numbers that a greeting begins with. */
export const MAGIC_BYTES = 8;
/** The server's flags, behind the magic numbers. */
export const HANDSHAKE_FLAGS_BYTES = 2;
/** The client's flags, its answer. */
export const CLIENT_FLAGS_BYTES = 4;

export function encodeGreeting(flags: number): Uint8Array {
  const bytes = new Uint8Array(2 * MAGIC_BYTES + HANDSHAKE_FLAGS_BYTES);
  const view = viewOf(bytes);
  view.setBigUint64(0, NBD_MAGIC);
  view.setBigUint64(MAGIC_BYTES, OPTION_MAGIC);
  view.setUint16(2 * MAGIC_BYTES, flags);
  return bytes;
}

/** Whether the first {@link MAGIC_BYTES} of a greeting are those of an NBD server. */
export function isNbdMagic(bytes: Uint8Array): boolean {
  return viewOf(bytes).getBigUint64(0) === NBD_MAGIC;
}

/** What the second {@link MAGIC_BYTES} say: how the handshake goes on. */
export function decodeStyle(bytes: Uint8Array): 'newstyle' | 'oldstyle' | undefined {
  const magic = viewOf(bytes).getBigUint64(0);
  if (magic === OPTION_MAGIC) return 'newstyle';
  return magic === OLDSTYLE_MAGIC ? 'oldstyle' : undefined;
}

export function decodeHandshakeFlags(bytes: Uint8Array): number {
  return viewOf(bytes).getUint16(0);
}

export function encodeClientFlags(flags: number): Uint8Array {
  const bytes = new Uint8Array(CLIENT_FLAGS_BYTES);
  viewOf(bytes).setUint32(0, flags);
  return bytes;
}

export function decodeClientFlags(bytes: Uint8Array): number {
  return viewOf(bytes).getUint32(0);
}
