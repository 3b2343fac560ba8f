import { MAX_STRING_BYTES } from './constants.js';

const encoder = new TextEncoder();
/** A byte order mark is part of a name like any other character: without it the name is another one. */
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/**
 * A name as bytes for the wire.
 *
 * @throws TypeError when it cannot be sent: too long, or with a NUL ("Strings").
 */
export function encodeText(text: string, what: string): Uint8Array {
  const bytes = encoder.encode(text);
  if (bytes.length > MAX_STRING_BYTES) {
    throw new TypeError(`${what} is ${bytes.length} bytes long; NBD allows ${MAX_STRING_BYTES}`);
  }
  if (text.includes('\0')) throw new TypeError(`${what} contains a NUL character`);
  return bytes;
}

/** A peer's text; broken UTF-8 becomes U+FFFD, since a message is no reason to fail. */
export function decodeText(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

/** A peer's text for a message: one line, without control characters that could fool a terminal. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not reach a terminal
  return text.replace(/[\u0000-\u001f\u007f-\u009f]+/g, ' ').trim();
}
