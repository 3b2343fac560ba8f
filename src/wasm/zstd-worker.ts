/** What the threads of zstd-threads.ts run. */
import { move } from 'piscina';
import { zstdLibrary } from './zstd-library.js';

export interface ZstdTask {
  readonly bytes: Uint8Array;
  readonly level: number;
}

export default async function compressInWorker({ bytes, level }: ZstdTask): Promise<Uint8Array> {
  const { compress } = await zstdLibrary();
  // What the library returns may be a part of a larger room, so a copy of its own is moved.
  return move(new Uint8Array(compress(bytes, level))) as unknown as Uint8Array;
}
