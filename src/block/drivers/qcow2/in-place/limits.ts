/** What holds for every way to write an image. */
import { LacunaError } from '../../../../errors/index.js';
import { type Header, Incompatible } from '../../../../qcow2/index.js';

/** L2 tables that one zero request may change, at least. */
const ZERO_TABLES = 16;
const GIB = 1024 ** 3;

/** The longest zero request, so that what it changes fits into memory. */
export function longestZero(l2Span: number): number {
  return Math.max(GIB, ZERO_TABLES * l2Span);
}

/** An image that must be repaired first is not made worse. */
export function checkWritable({ incompatible }: Header, image: string): void {
  const found =
    (incompatible & Incompatible.corrupt) !== 0n
      ? 'is marked as corrupt'
      : (incompatible & Incompatible.dirty) !== 0n
        ? 'was not closed, and its refcounts may be wrong'
        : undefined;
  if (found === undefined) return;
  const advice = `repair it with "lacuna check -r all -f qcow2 ${image}" before it is written, or open it read-only`;
  throw new LacunaError('ERR_QCOW2_UNSUPPORTED', `${image} ${found}: ${advice}`, { device: image });
}
