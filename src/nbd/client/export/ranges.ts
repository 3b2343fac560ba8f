/** What an export says of the ranges that it takes. */
interface Bounds {
  readonly size: number;
  /** Offsets and lengths are multiples of this, except at the end of the export. */
  readonly requiredBlock: number;
}

/**
 * @throws RangeError unless the range consists of whole numbers, lies inside the export, is not too long and
 * is made of whole blocks.
 */
export function checkRange(
  { offset, length }: { offset: number; length: number },
  { size, requiredBlock }: Bounds,
  longest: number,
): void {
  const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length);
  if (!whole || offset < 0 || length < 0 || length > size - offset) {
    throw new RangeError(`${length} bytes at ${offset} are not inside an export of ${size} bytes`);
  }
  if (length > longest)
    throw new RangeError(`${length} bytes are more than a request may have, ${longest}`);
  if (requiredBlock === 1) return;
  const end = offset + length;
  if (offset % requiredBlock === 0 && (end % requiredBlock === 0 || end === size)) return;
  throw new RangeError(
    `${length} bytes at ${offset} are not made of whole blocks of ${requiredBlock} bytes, as the ` +
      'server demands; openDevice opens the export for requests of any alignment',
  );
}
