import { InvalidArgumentError } from 'commander';
import { parseSize } from '../../util/index.js';

/** Bytes as people type them after a flag: `65536`, `64K`, `1.5G`. */
export function parseBytes(text: string): number {
  try {
    return parseSize(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

/** A whole number as people type it, not below `least`, nor above `most`. */
export function parseCount(
  least: number,
  most = Number.MAX_SAFE_INTEGER,
): (text: string) => number {
  const range = most < Number.MAX_SAFE_INTEGER ? ` from ${least} to ${most}` : `, ${least} or more`;
  return (text) => {
    const count = Number(text);
    if (/^\d+$/.test(text) && count >= least && count <= most) return count;
    throw new InvalidArgumentError(`Give a whole number${range}.`);
  };
}
