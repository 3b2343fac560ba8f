import type { NbdServerAddress, NbdTls } from '../../nbd/index.js';

/**
 * How a device is opened: plain JSON with the names of QEMU's `-blockdev`, so that a worker can open its
 * own, and so that a command line can say it as JSON or dotted keys.
 */
export type DeviceDescription =
  | FileDescription
  | NbdDescription
  | NullDescription
  | MemoryDescription
  | Qcow2Description;

/** What every description may say. */
export interface CommonDescription {
  /** Refuse writes, and open the resource so that it refuses them too. Default false. */
  'read-only'?: boolean;
  /** Read although others may be writing, so that what is read may not fit together. Default false. */
  'force-share'?: boolean;
}

/** A raw disk in a regular file or a block device. */
export interface FileDescription extends CommonDescription {
  /** A file or a block device that holds the bytes of the disk as they are. */
  driver: 'file';
  /** Its path. */
  filename: string;
  /**
   * Locks that QEMU respects and takes too: whoever writes is alone, whoever reads keeps writers out. Default
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

/** An export of an NBD server. */
export interface NbdDescription extends CommonDescription {
  /** A client of an NBD server. */
  driver: 'nbd';
  /** Where it listens: `type` is `unix` with a `path`, or `inet` with `host` and `port`. */
  server: NbdServerAddress;
  /** Name of the export; default the empty name, the server's default export. */
  export?: string;
  /**
   * Requires TLS. The keys are those of `tls-...` in an NBD URI (`type`, `certificates`, `hostname`,
   * `verify-peer`, `psk-file`), and `ca`, `cert`, `key` for PEM texts or a key in place of files.
   */
  tls?: NbdTls;
  /** Metadata contexts beside `base:allocation`, such as `qemu:dirty-bitmap:NAME`. */
  contexts?: string[];
  /** Ask for `base:allocation` as well. Default true; see `NbdConnectOptions`. */
  allocation?: boolean;
  /**
   * Seconds for which requests wait when the connection is lost, while it is made again. Default 0: they fail at
   * once. See `ReconnectingClient` for what is made again and when a flush fails.
   */
  'reconnect-delay'?: number;
  /** Seconds for which opening is tried again. Default 0: once. */
  'open-timeout'?: number;
  /** Seconds that connecting and the handshake together may take. Default 15; 0 for no limit. */
  'connect-timeout'?: number;
  /**
   * Seconds without any progress, while requests wait, after which the connection counts as lost. Default 300; 0 for no
   * limit.
   */
  'request-timeout'?: number;
}

/** Reads as zero and forgets what is written. */
export interface NullDescription extends CommonDescription {
  /** Nothing at all. */
  driver: 'null';
  /** Bytes, at most 2^53 - 1; default the largest size there is. */
  size?: number;
}

/** Sparse memory of this thread; every opening makes a new, empty one. */
export interface MemoryDescription extends CommonDescription {
  /** Memory, gone when the device is closed. */
  driver: 'memory';
  /** Bytes. */
  size: number;
}

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
   * snapshots and bitmaps.
   */
  mapping?: 'fixed';
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
