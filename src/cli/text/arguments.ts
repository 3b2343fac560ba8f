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

/** A whole number as people type it, not below `least`. */
export function parseCount(least: number): (text: string) => number {
  return (text) => {
    const count = Number(text);
    if (/^\d+$/.test(text) && Number.isSafeInteger(count) && count >= least) return count;
    throw new InvalidArgumentError(`Give a whole number, ${least} or more.`);
  };
}
