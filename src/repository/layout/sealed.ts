/**
 * JSON that carries its own checksum: `{"sha256":"HEX"`, then the rest of the document, of which the digits are the
 * SHA-256. A bit that changed anywhere in such a file is found.
 */
import { createHash } from 'node:crypto';

const HEAD = /^\{"sha256":"([0-9a-f]{64})",/;
/** Bytes before those that the checksum is of. */
const HEAD_BYTES = 76;

/** Why a text is not what was written. */
export const NOT_SEALED = 'its checksum does not fit: it was changed or cut since it was written';

/** A document as text with its checksum; it has one member at least. */
export function seal(document: object): Buffer {
  const rest = Buffer.from(`,${JSON.stringify(document).slice(1)}\n`);
  return Buffer.concat([Buffer.from(`{"sha256":"${sha256(rest)}"`), rest]);
}

/** What was sealed, without the checksum; undefined where the bytes are other ones. */
export function unseal(bytes: Buffer): Record<string, unknown> | undefined {
  const [, digits] = HEAD.exec(bytes.toString('latin1', 0, HEAD_BYTES + 1)) ?? [];
  if (digits === undefined || digits !== sha256(bytes.subarray(HEAD_BYTES))) return undefined;
  try {
    const { sha256: _, ...document } = JSON.parse(bytes.toString('utf8'));
    return document;
  } catch {
    return undefined;
  }
}

/** In hexadecimal digits. */
export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
