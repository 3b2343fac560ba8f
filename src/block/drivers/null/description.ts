import type { CommonDescription } from '../../contract/index.js';

/** Reads as zero and forgets what is written. */
export interface NullDescription extends CommonDescription {
  /** Nothing at all. */
  driver: 'null';
  /** Bytes, at most 2^53 - 1; default the largest size there is. */
  size?: number;
}

declare module '../../contract/description.js' {
  interface Descriptions {
    /** Nothing at all. */
    null: NullDescription;
  }
}
