import type { Bitmap } from '../../bitmap/index.js';
import type { BlockDevice } from './block-device.js';
import type { CommonDescription, DeviceDescription } from './description.js';
import type { Driver } from './driver.js';
import type { Key } from './keys.js';

/** What a driver is told when it is opened: by the caller, or by the device above it. */
export interface Opening {
  /**
   * Opens a device below this one. The driver closes it. To keep it open, hand in a device whose `close` does
   * nothing.
   */
  readonly open: (description: DeviceDescription, opening: Opening) => Promise<BlockDevice>;
  /** Folders that the device above may follow names into. */
  readonly folders?: readonly string[];
  /** The files of the devices above. */
  readonly above: ReadonlyArray<string | undefined>;
  /** The file of an image, which grows where it is written behind its end. */
  readonly grows?: boolean;
  /** What is written is what the disk shows already: bitmaps do not record it. Default false. */
  readonly unrecorded?: boolean;
  /**
   * The caller owns what is below the device, may replace it while the device is open, and records what is written: the driver
   * lends its bitmaps ({@link Driver.keeps}) and leaves them alone. Default false.
   */
  readonly live?: boolean;
  /**
   * Loads a bitmap of a node, where nodes have names. Returns a function that copies its bits as they are when it is called; the
   * caller frees the copy.
   */
  readonly bitsOf?: (node: string, bitmap: string) => Promise<() => Bitmap>;
  /**
   * Loads the bitmaps of a device that was opened through this. Returns a function that copies the bits of all of them as they are when it
   * is called, by metadata context; the caller frees the copies.
   */
  readonly shownBitsOf?: (device: BlockDevice) => Promise<() => Map<string, Bitmap>>;
  /**
   * How many layers of images there are from a device that was opened through this down to a node, both counted, whenever it is
   * asked; undefined where the node does not lie below.
   */
  readonly layersTo?: (device: BlockDevice, node: string) => number | undefined;
  /** The memory that nodes of one graph share under a name; `make` makes it for the first one. */
  readonly memoryOf?: (group: string, make: () => SharedArrayBuffer) => SharedArrayBuffer;
  /** As what a device is opened below another one. */
  readonly as?: Pick<Child, 'key' | 'role'>;
  /** What the files do not have any more reads as zero. Default: what the description says. */
  readonly rescue?: boolean;
  /** Ends opening; afterwards it has no effect. */
  readonly signal?: AbortSignal;
}

/**
 * What the bytes of a device are to the one above it: the same disk, byte for byte; parts of an image, whose clusters may
 * lie anywhere; a disk of which it is a part; or what shows through from below, which is only read.
 */
export type ChildRole = 'disk' | 'image' | 'data file' | 'part' | 'below' | LiveRole;

/**
 * Roles that only graphs have: a disk whose old content is kept before it is written; a disk into which is copied what shines
 * through from below; the place where old content is kept; and the filter that keeps it, for a view that shows it.
 */
export type LiveRole = 'watched disk' | 'filled disk' | 'target' | 'snapshot';

/** A device below another one, as the description of that says it. */
export interface Child {
  /** The key that says it. */
  readonly key: string;
  readonly description: DeviceDescription;
  readonly role: ChildRole;
}

/** One key for everything that a description may say beside what all may say. */
type KeysOf<D> = { readonly [K in Exclude<keyof D, keyof CommonDescription | 'driver'>]-?: Key };

/** Everything that others need to know of a kind of driver. It costs nothing to load; the driver itself may. */
export interface DriverKind<D> {
  /** What its description may say, and how each value is read. */
  readonly keys: KeysOf<D>;
  /** The end of a file's name that stands for it, in lower case and with its dot. */
  readonly ending?: string;
  /** Reads a text that is neither a path nor a description, such as a URI; undefined where it is not of this kind. */
  readonly parse?: (text: string) => D | undefined;
  /** Of an image format: the description of an image whose own bytes are in `file`. */
  readonly around?: (file: DeviceDescription) => D;
  /** It wraps the one device below it, whose format and files it leaves as they are. */
  readonly isFilter?: boolean;
  /** Opens the device; see `openDevice` for what is thrown. */
  readonly open: (description: D, opening: Opening) => Promise<Driver> | Driver;
  /** The devices below it that its description says, the one with its own bytes first. */
  readonly children?: (description: D) => readonly Child[];
  /** The keys that name files which are written beside the disk, such as a log. */
  readonly sideFiles?: readonly string[];
  /** With what all openings share; what is given already stays. */
  readonly sharing?: (description: D) => D;
  /** As large as what is going to be written to it, where its description leaves the size open. */
  readonly sized?: (description: D, size: number) => D;
  /** Whether two descriptions of this kind are known to lead to one device, whatever they call it. */
  readonly isSame?: (a: D, b: D) => Promise<boolean>;
  /** What tells it from other devices in a later run too, where that is not a file. */
  readonly place?: (description: D) => string;
  /** Its requests go to another program, which may answer several connections at the same time. */
  readonly remote?: boolean;
  /** The program that answers its requests runs on this machine, and needs its processors as well. */
  readonly isServedHere?: (description: D) => boolean;
}
