import type { BlockDevice } from '../../block/index.js';
import type { Increment } from './increment-layout.js';
import type { Binding } from './resume-binding.js';
import type { MadeFile } from './unfinished-file.js';

/** A target that is ready to be written. */
export interface Target {
  device: BlockDevice;
  /** Every byte reads as zero; where `holdsOldData`, every byte but those of the data that the plan knows. */
  isZero: boolean;
  /** Where data is planned, old bytes are seen until it is written: zeroes that are found in data are written as well. */
  holdsOldData?: boolean;
  warnings: string[];
  /** What tells it from other targets. */
  binding: Binding;
  /** The unfinished file that is written, if it is one. */
  made?: MadeFile;
  /** An earlier run has moved everything, and given the file its name. */
  complete?: boolean;
  /** The device that holds a part of a new image, and nothing of what it held before that anybody could use. */
  partOfImage?: string | undefined;
  /** Names of the bitmaps that it is going to have from the source, if that was asked for. */
  bitmaps?: readonly string[];
  /** Prepares a new target for what the plan says will be written: once, before anything is. */
  layOut?: ((increment: Increment) => Promise<void>) | undefined;
  /** Makes durable where the target can be found while it is written. */
  anchor(): Promise<void>;
  /** Makes the target take its final name, when all is written and durable. Returns warnings. */
  finish(): Promise<string[]>;
  /** After a failure: removes what was made and not written to. Never fails. */
  removeUnfinished(): Promise<void>;
  /**
   * After a failure: leaves what was written so that nobody takes it for whole, and returns the unfinished file, if it is
   * one. Never fails.
   */
  keepUnfinished(): Promise<string | undefined>;
  /** Opens the device anew after its connection was lost; one of the caller's, or a file, stays as it is. */
  reopen(): Promise<void>;
  /** Closes what was opened here; a device of the caller's stays open. */
  close(): Promise<void>;
}
