/** @throws RangeError unless the range consists of whole numbers, lies inside `size` and is not too long. */
export function checkRange(
  { offset, length }: { offset: number; length: number },
  size: number,
  longest: number,
): void {
  const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length);
  if (!whole || offset < 0 || length < 0 || offset + length > size) {
    throw new RangeError(`${length} bytes at ${offset} are not inside an export of ${size} bytes`);
  }
  if (length > longest)
    throw new RangeError(`${length} bytes are more than a request may have, ${longest}`);
}
