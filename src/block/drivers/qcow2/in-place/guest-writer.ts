import type { Header } from '../../../../qcow2/index.js';
import type { BackingName, WriteOptions, ZeroOptions } from '../../../contract/index.js';

/** What the clusters that are mapped take of the file system: see `Preallocation`, where `off` maps none. */
export type Reserved = 'metadata' | 'falloc' | 'full';

/** How a disk becomes larger. */
export interface Growth {
  /** Maps all clusters that begin in what is added. */
  readonly reserved?: Reserved | undefined;
  /** Gives up: the disk keeps the size that it had, and takes no more room. */
  readonly signal?: AbortSignal | undefined;
}

/** The writing half of an image, as its driver knows it. Offsets and lengths are those of the disk. */
export interface GuestWriter {
  /** Runs a read while nobody maps its clusters anew. */
  reading<T>(offset: number, length: number, read: () => Promise<T>): Promise<T>;
  write(offset: number, source: Uint8Array, options: WriteOptions): Promise<void>;
  zero(offset: number, length: number, options: ZeroOptions): Promise<void>;
  discard(offset: number, length: number): Promise<void>;
  /** Makes everything durable that was written. */
  flush(): Promise<void>;
  /** Brings into the file what is only in memory, so that it can be closed. */
  finish(): Promise<void>;
  /** The header as it is now. */
  readonly current: Header;
  /** Names another backing file, or none, durably and behind all that was written. */
  nameBacking(backing: BackingName | null): Promise<void>;
  /** @throws what {@link nameBacking} would throw before it writes anything. */
  checkBackingName(backing: BackingName | null): void;
  /** Makes the disk larger; maps what is added, where that is `reserved`. */
  grow(size: number, how?: Growth): Promise<void>;
  /** Makes the disk smaller. */
  shrink(size: number): Promise<void>;
}
