/** The largest size of anything, and the last offset but one: numbers are exact so far. 8 PiB itself is too much. */
export const SIZE_LIMIT = `${Number.MAX_SAFE_INTEGER} bytes (8 PiB - 1)`;

const SUFFIXES = 'BKMGTPE';
const FORM = /^(\d+(?:\.\d+)?)([BKMGTPE]?)$/i;

/**
 * Reads a size the way qemu-img does: `65536`, `64K`, `1.5G`. Suffixes are powers of 1024, in either case;
 * none, or `B`, means bytes.
 *
 * @throws TypeError if the text is no size; RangeError if it is no whole number of bytes, or too large.
 */
export function parseSize(text: string): number {
  const match = FORM.exec(text.trim());
  if (match === null) {
    throw new TypeError(
      `"${text}" is not a size: write bytes, or a number with K, M, G, T, P or E`,
    );
  }
  const power = Math.max(0, SUFFIXES.indexOf(match[2].toUpperCase()));
  const bytes = Number(match[1]) * 1024 ** power;
  if (bytes > Number.MAX_SAFE_INTEGER) {
    throw new RangeError(`${text} is too large: sizes end at ${SIZE_LIMIT}`);
  }
  if (!Number.isInteger(bytes)) throw new RangeError(`${text} is not a whole number of bytes`);
  return bytes;
}
