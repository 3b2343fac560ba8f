import type { CommonDescription, DeviceDescription } from '../../../contract/index.js';

/** A qcow2 image. */
export interface Qcow2Description extends CommonDescription {
  /** An image in QEMU's format, version 2 or 3. */
  driver: 'qcow2';
  /** Where the image itself is: a file, as a rule. */
  file: DeviceDescription;
  /** In place of the backing file that the image names; null for none, so that gaps read as zero. */
  backing?: DeviceDescription | null;
  /** In place of the external data file that the image names. */
  'data-file'?: DeviceDescription;
  /** Read the disk as it was in this internal snapshot (its id or its name). It cannot be written then. */
  snapshot?: string;
  /**
   * Write only where clusters are mapped already, and never change how: what would is refused with
   * ERR_DEVICE_UNSUPPORTED. Several openings, in any threads, may write beside each other then. Only for an image without
   * snapshots and bitmaps. `unfinished` is the same for a new image that is being made on a device, which nobody else opens
   * before it is finished.
   */
  mapping?: 'fixed' | 'unfinished';
  /**
   * Store every whole cluster that is written where nothing was allocated compressed, as the image's compression type
   * says, if that makes it smaller. Default false.
   */
  compress?: boolean;
  /**
   * Read what the files of the chain do not have any more as zeroes, where they are cut short; see `missing` of a device
   * for what that was. Only for reading. Default false: it is an error.
   */
  rescue?: boolean;
  /**
   * Folders inside which files that an image names may be followed, through the whole chain. Default: the
   * folder of the image.
   */
  'backing-folders'?: string[];
}

declare module '../../../contract/description.js' {
  interface Descriptions {
    /** A qcow2 image. */
    qcow2: Qcow2Description;
  }
}
