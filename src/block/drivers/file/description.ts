import type { CommonDescription } from '../../contract/index.js';

/** A raw disk in a regular file or a block device. */
export interface FileDescription extends CommonDescription {
  /** A file or a block device that holds the bytes of the disk as they are. */
  driver: 'file';
  /** Its path. */
  filename: string;
  /**
   * Locks that QEMU respects and takes too: a writer is alone, a reader keeps writers out. Default
   * `auto`: where the system and the file system have them. With `off` a block device is written although it is mounted,
   * or in use by the system.
   */
  locking?: 'on' | 'off' | 'auto';
  /**
   * The file that must be behind the path, as `DEVICE:INODE` (`stat -c %d:%i`), or the number of a block device (`stat
   * -c %r`); opening fails with ERR_DEVICE_OPEN where it is another one. What has been opened says it of itself, so
   * that a second opening meets the same file. A copy that makes its target anew does not look at it. Leave it out of
   * what is kept: numbers of devices may change when the machine starts, and a file that is replaced is another one.
   */
  inode?: string;
}

declare module '../../contract/description.js' {
  interface Descriptions {
    /** A raw disk in a file. */
    file: FileDescription;
  }
}
