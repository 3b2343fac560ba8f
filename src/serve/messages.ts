import type { WireError } from '../errors/index.js';

/** What a thread is told. Clients are known by a number. */
export type ToThread =
  /** Serve the client behind this file descriptor, which is yours from the answer `taken` on. */
  | { readonly type: 'accept'; readonly id: number; readonly fd: number }
  | { readonly type: 'shutdown'; readonly id: number }
  | { readonly type: 'destroy'; readonly id: number; readonly failure: WireError }
  /** No more clients will come. */
  | { readonly type: 'end' };

/** What a thread tells. */
export type FromThread =
  | { readonly type: 'taken'; readonly id: number }
  /** It has entered an export, or there was no place for it. */
  | { readonly type: 'entered'; readonly id: number }
  | { readonly type: 'crowded'; readonly id: number }
  | { readonly type: 'closed'; readonly id: number; readonly failure?: WireError }
  /** It cannot serve, and ends. */
  | { readonly type: 'failed'; readonly error: WireError }
  | { readonly type: 'deviceError'; readonly error: WireError };
