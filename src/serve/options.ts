import type { Bitmap } from '../bitmap/index.js';
import type { BlockDevice } from '../block/index.js';
import type { NbdExportOptions, NbdServerOptions } from '../nbd/server/index.js';

/** A device as an export, with bitmaps by name. */
export interface ServedDevice extends NbdExportOptions {
  /** What is served. The server does not close it. */
  readonly device: BlockDevice;
  /** Bitmaps by name, served as `qemu:dirty-bitmap:NAME`. They must not be freed while they are served. */
  readonly bitmaps?: Readonly<Record<string, Bitmap>>;
}

/** What a server serves, and in how many threads. */
export interface ServeOptions extends Omit<NbdServerOptions, 'exports'> {
  /** What is served; names are unique. */
  readonly exports: readonly ServedDevice[];
  /**
   * Worker threads that serve clients beside the calling thread, which takes the first of them; 0 does without. Each
   * opens the devices anew when it gets its first client. Default: one for each further processor, at most 7. There
   * are none where a device can be written, is an image that others may write (`force-share`), or is not made of files
   * alone, nor without koffi.
   */
  readonly threads?: number;
}
