import type { CommonDescription } from '../../contract/index.js';

/** Sparse memory of this thread; every opening makes a new, empty one. */
export interface MemoryDescription extends CommonDescription {
  /** Memory, gone when the device is closed. */
  driver: 'memory';
  /** Bytes. */
  size: number;
}

declare module '../../contract/description.js' {
  interface Descriptions {
    /** Memory. */
    memory: MemoryDescription;
  }
}
