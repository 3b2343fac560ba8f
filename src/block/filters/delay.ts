import { type CommonDescription, milliseconds, someOf } from '../contract/index.js';
import { filterKind } from './filter-kind.js';
import { type FilterDescription, OPERATIONS, type Operation } from './pass-through.js';
import { pause } from './pause.js';

/** Makes requests take longer, as over a slow network. */
export interface DelayDescription extends CommonDescription, FilterDescription {
  /** Makes requests wait. */
  driver: 'delay';
  /** Milliseconds that each request waits before it is passed on. */
  milliseconds: number;
  /** The requests that wait: `read`, `write`, `zero`, `discard`, `flush`, `status`. Default: all. */
  operations?: Operation[];
}

declare module '../contract/description.js' {
  interface Descriptions {
    /** Requests that take longer. */
    delay: DelayDescription;
  }
}

export const delay = filterKind<DelayDescription>({
  keys: {
    milliseconds: { read: milliseconds, required: true },
    operations: { read: someOf(...OPERATIONS) },
  },
  around: ({ milliseconds: ms, operations = [...OPERATIONS] }) => {
    const delayed = new Set<Operation>(operations);
    return async ({ operation, signal }, pass) => {
      if (delayed.has(operation)) await pause(ms, signal);
      return await pass();
    };
  },
});
