import type { DirtyBitmap, DirtyBitmapInfo } from '../../bitmap/index.js';
import { Device, type Driver, GrowingFile } from '../../block/index.js';
import { closeAfter } from '../../util/index.js';
import type { Named } from './failures.js';
import type { FileBitmaps } from './file-bitmaps.js';
import { type MemoryBitmap, NodeBitmaps } from './node-bitmaps.js';
import { Recorder } from './recorder.js';

/** What is known of a node before its driver is open. */
export interface NodeOptions {
  readonly name: string;
  readonly driverName: string;
  readonly writable: boolean;
  /** It wraps the one node below it, byte for byte. */
  readonly isFilter: boolean;
  /** It was made with the node above it, and goes with the last one. */
  readonly isOwned: boolean;
  /** It is a part of a job, which alone removes it. */
  readonly isOfJob?: boolean;
}

/** A device with a name in a graph. What changes it goes through the graph: it is used through exports and jobs. */
export class Node implements Named {
  /** Unique in its graph. */
  readonly name: string;
  readonly what = 'node';
  /** The driver of its description, such as `qcow2` or `throttle`. */
  readonly driverName: string;
  /** @internal Opens its driver once more, over the same nodes; absent where that is impossible. */
  openAnew?: (writable: boolean) => Promise<Driver>;
  /** @internal Where it was opened for writing since: lets what holds its bytes be as before. */
  endsWriting: (() => Promise<void>) | undefined;
  /** @internal The job that alone uses it, since what it shows is not its own meanwhile. */
  movedBy: string | undefined;
  /** @internal The job that has put it into its place, as a person would name it. */
  heldBy: string | undefined;
  /** @internal The images that this job works on. Without, all that are below. */
  heldLayers?: ReadonlySet<Node>;
  /** @internal */
  readonly isFilter: boolean;
  /** @internal */
  readonly isOwned: boolean;
  /** @internal */
  readonly isOfJob: boolean;
  /** @internal It was writable when it was added. */
  readonly wasAddedWritable: boolean;
  #writable: boolean;
  #driver: Driver | undefined;
  #device: Device | undefined;
  #bitmaps: NodeBitmaps | undefined;

  /** @internal */
  constructor(options: NodeOptions) {
    const { name, driverName, writable, isFilter, isOwned, isOfJob = false } = options;
    this.name = name;
    this.driverName = driverName;
    this.wasAddedWritable = writable;
    this.#writable = writable;
    this.isFilter = isFilter;
    this.isOwned = isOwned;
    this.isOfJob = isOfJob;
  }

  /** Whether it may be written. */
  get writable(): boolean {
    return this.#writable;
  }

  /** Bytes. */
  get size(): number {
    return this.device.size;
  }

  /** States and numbers of its named bitmaps. */
  get bitmaps(): DirtyBitmapInfo[] {
    return this.#bitmaps?.bitmaps.list() ?? [];
  }

  /** A look at one of its bitmaps, with its bits in memory. @throws LacunaError ERR_BITMAP_UNKNOWN */
  async bitmap(name: string): Promise<DirtyBitmap> {
    return this.log.bitmaps.load(name);
  }

  /** @internal What carries out requests, in whatever state the graph is: only edges call it. */
  get device(): Device {
    if (this.#device === undefined) throw new TypeError(`node '${this.name}' is not open`);
    return this.#device;
  }

  /** @internal */
  get driver(): Driver {
    if (this.#driver === undefined) throw new TypeError(`node '${this.name}' is not open`);
    return this.#driver;
  }

  /** @internal How its changes get into its bitmaps. */
  get log(): NodeBitmaps {
    if (this.#bitmaps !== undefined) return this.#bitmaps;
    throw new TypeError(`node '${this.name}' is the file of an image, which has no bitmaps`);
  }

  /** @internal Whether its bitmaps are kept in a file beside it. */
  get hasBitmapFile(): boolean {
    return this.#bitmaps?.isInFile ?? false;
  }

  /** @internal Whether it keeps what the disk below it was. */
  get keepsOld(): boolean {
    return this.#driver?.snapshot?.hasBegun ?? false;
  }

  /** @internal Whether it must see every write of what is below it: nobody may write that beside it then. */
  get isWatching(): boolean {
    return this.keepsOld || (this.#driver?.diskCopy?.hasBegun ?? false);
  }

  /** @internal Whether it is as large as its user makes it. */
  get grows(): boolean {
    return this.#bitmaps === undefined;
  }

  /**
   * @internal
   * @param grows it is the file of an image that is written.
   * @param kept where its bitmaps are kept, if not by its driver.
   */
  begin(driver: Driver, grows: boolean, kept?: FileBitmaps): void {
    const options = { readOnly: !this.writable, node: this.name };
    if (grows && driver.grows) {
      this.#driver = GrowingFile.over(driver);
      this.#device = new Device(this.#driver, options);
      return;
    }
    this.#driver = driver;
    this.#bitmaps = new NodeBitmaps(driver.size, kept ?? driver.keeps);
    this.#device = new Device(new Recorder(driver, this.#bitmaps), options);
  }

  /**
   * @internal Its driver is another one from now on, for the same disk.
   *
   * @param kept bitmaps that it keeps in memory. Default: all that it has.
   */
  beginAnew(driver: Driver, writable: boolean, kept?: readonly MemoryBitmap[]): void {
    const before = this.#bitmaps;
    const bitmaps = kept ?? before?.inMemory() ?? [];
    this.#writable = writable;
    this.begin(driver, false);
    this.log.restore(bitmaps);
    before?.freeOwn();
  }

  /** @internal Becomes the file of an image that is written. Nobody else may use it. */
  letGrow(): void {
    const { driver } = this;
    if (!driver.grows) return;
    this.#bitmaps?.bitmaps.free();
    this.#bitmaps = undefined;
    this.begin(driver, true);
  }

  /** @internal The image is gone: it is as large as that has made it. */
  endGrowth(): void {
    if (this.grows && this.#driver instanceof GrowingFile) this.begin(this.#driver.ended(), false);
  }

  /** @internal */
  async close(): Promise<void> {
    let wasClosed = false;
    const close = async () => {
      await this.#device?.close();
      wasClosed = true;
    };
    await closeAfter(close, async () => this.#bitmaps?.close(wasClosed));
  }
}
