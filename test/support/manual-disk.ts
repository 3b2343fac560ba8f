import { Device, type Driver } from '#dist/block/index.js';
import { LacunaError } from '#dist/errors/index.js';
import { Context, ExtentList, Status } from '#dist/extent/index.js';

/** A request that waits until a test decides what becomes of it. */
export interface HeldRequest {
  readonly what: 'read' | 'write' | 'zero' | 'discard' | 'flush' | 'status';
  readonly offset: number;
  readonly length: number;
  /** Carries it out. */
  release(): void;
  /** Fails it, having carried it out or not. */
  fail(landed: boolean): void;
  /** Fails it with this error; it is not carried out. */
  reject(error: Error): void;
}

/** A disk in memory each of whose requests waits for the test. */
export class ManualDisk {
  readonly bytes: Uint8Array;
  readonly device: Device;
  /** In the order in which they came. */
  readonly held: HeldRequest[] = [];
  /** Told of each flush, which is carried out at once then. */
  onFlush?: () => void;
  /** While set, requests are carried out at once. */
  isFree = false;
  /** Of each cluster, whether it was written and not discarded since. */
  readonly allocated: boolean[];

  /** @param cluster where given, the disk tells what is allocated, and allocates so many bytes at a time. */
  constructor(size: number, name = 'manual', cluster?: number) {
    this.bytes = new Uint8Array(size);
    const { bytes } = this;
    this.allocated = new Array(cluster === undefined ? 0 : size / cluster).fill(false);
    const allocate = (offset: number, length: number, isThere: boolean) => {
      if (cluster === undefined || length === 0) return;
      const last = Math.floor((offset + length - 1) / cluster);
      this.allocated.fill(isThere, Math.floor(offset / cluster), last + 1);
    };
    const driver: Driver = {
      name,
      size,
      limits: {
        minimum: 1,
        preferred: 512,
        maximum: size,
        maximumZero: size,
        zeroAlignment: 1,
        discardAlignment: 1,
      },
      capabilities: {
        ...{ write: true, zero: true, discard: true, flush: true },
        contexts: cluster === undefined ? [] : [Context.allocation, Context.depth],
      },
      read: (offset, target) =>
        this.#hold('read', offset, target.length, () => {
          target.set(bytes.subarray(offset, offset + target.length));
        }),
      write: (offset, source) =>
        this.#hold('write', offset, source.length, () => {
          bytes.set(source, offset);
          allocate(offset, source.length, true);
        }),
      zero: (offset, length) =>
        this.#hold('zero', offset, length, () => bytes.fill(0, offset, offset + length)),
      discard: (offset, length) =>
        this.#hold('discard', offset, length, () => {
          bytes.fill(0, offset, offset + length);
          allocate(offset, length, false);
        }),
      extents: async (offset, _length, contexts) => {
        const lists: ExtentList[] = [];
        await this.#hold('status', offset, size, () => {
          for (const context of contexts) lists.push(this.#extents(offset, context, cluster!));
        });
        return lists;
      },
      flush: () => this.#hold('flush', 0, 0, () => {}),
      close: async () => {},
    };
    this.device = new Device(driver);
  }

  #extents(offset: number, context: string, cluster: number): ExtentList {
    const list = new ExtentList(offset);
    const [there, gone] =
      context === Context.depth ? [1, 0] : [Status.data, Status.hole | Status.zero];
    for (let at = offset; at < this.bytes.length; at = list.end) {
      const isThere = this.allocated[Math.floor(at / cluster)];
      list.push(cluster - (at % cluster), isThere ? there : gone);
    }
    return list;
  }

  #hold(
    what: HeldRequest['what'],
    offset: number,
    length: number,
    carryOut: () => void,
  ): Promise<void> {
    if (what === 'flush' && this.onFlush !== undefined) {
      this.onFlush();
      return Promise.resolve();
    }
    if (this.isFree) {
      carryOut();
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const leave = () => this.held.splice(this.held.indexOf(request), 1);
      const request: HeldRequest = {
        what,
        offset,
        length,
        release: () => {
          leave();
          carryOut();
          resolve();
        },
        fail: (landed) => {
          leave();
          if (landed) carryOut();
          reject(new LacunaError('ERR_DEVICE_IO', `${what} at ${offset} failed by the test`));
        },
        reject: (error) => {
          leave();
          reject(error);
        },
      };
      this.held.push(request);
    });
  }
}

/** Waits until a disk is asked to flush, and lets that be. */
export async function letFlush({ held }: ManualDisk): Promise<void> {
  for (;;) {
    const flush = held.find(({ what }) => what === 'flush');
    if (flush !== undefined) return flush.release();
    await settled();
  }
}

/** Lets everything go on that does not wait for the test. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 4; turn++) await new Promise((resolve) => setImmediate(resolve));
}
