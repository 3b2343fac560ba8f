/**
 * A device that is written from two sides: by a mirror, which hands on what the guest writes, and by a copy of what had
 * changed before. What the mirror has written, zeroed or trimmed is as new as the disk or newer than what the copy has
 * read, so the copy never overwrites a byte of it, however the two meet.
 */
import { type BlockDevice, Device, type Driver } from '../../block/index.js';
import type { NbdExportDevice } from '../../nbd/index.js';
import { settleAll } from '../../util/index.js';
import { WrittenBytes } from './written-bytes.js';

/** A write of the copy that is under way. */
interface BaseWrite {
  readonly offset: number;
  readonly end: number;
  readonly done: Promise<void>;
}

export class TwoWriters {
  /** What the mirror writes to, over NBD. */
  readonly mirrorSide: NbdExportDevice;
  /** What the copy writes to. Closing it leaves the device open. */
  readonly baseSide: BlockDevice;
  readonly #device: BlockDevice;
  readonly #inFlight = new Set<BaseWrite>();
  #written: WrittenBytes | undefined;
  #writes = 0;
  #bytes = 0;
  #failure: unknown;

  constructor(device: BlockDevice) {
    this.#device = device;
    this.#written = new WrittenBytes(device.size);
    this.mirrorSide = this.#makeMirrorSide();
    this.baseSide = new Device(this.#makeBaseSide());
  }

  /** Requests of the mirror that have been carried out. */
  get writes(): number {
    return this.#writes;
  }

  /** Bytes of these. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Why a request of the mirror has failed, if one has: QEMU is told no more than a kind of error. */
  get failure(): unknown {
    return this.#failure;
  }

  /** The copy has ended: from here on nobody has to know what the mirror has written. */
  endBase(): void {
    this.#written?.free();
    this.#written = undefined;
  }

  #makeMirrorSide(): NbdExportDevice {
    const device = this.#device;
    const { size, limits, capabilities } = device;
    return {
      size,
      // With any other, QEMU would read what lies around a short write, and write it as its own.
      limits: { minimum: 1, preferred: limits.preferred },
      capabilities: { ...capabilities, fastZero: false, discard: true },
      read: (offset, target) => device.read(offset, target),
      write: (offset, source, options) =>
        this.#asMirror(offset, source.byteLength, () => device.write(offset, source, options)),
      zero: (offset, length, { unmap, fua }) =>
        this.#asMirror(offset, length, () => device.zero(offset, length, { unmap, fua })),
      // What a disk does not keep reads as zero in nearly all of them, and in a replica always.
      discard: (offset, length) =>
        this.#asMirror(offset, length, () => device.zero(offset, length, { unmap: true })),
      flush: () => device.flush(),
      someExtents: (offset, length, options) => device.someExtents(offset, length, options),
    };
  }

  #makeBaseSide(): Driver {
    const device = this.#device;
    const { write, zero, flush, contexts, exactStatus } = device.capabilities;
    return {
      name: device.name,
      size: device.size,
      // For the same reason as above.
      limits: { ...device.limits, minimum: 1 },
      capabilities: { write, zero, flush, contexts, exactStatus },
      read: (offset, target) => device.read(offset, target),
      write: (offset, source, options) =>
        this.#asBase(offset, source.byteLength, (at, bytes) =>
          device.write(at, source.subarray(at - offset, at - offset + bytes), options),
        ),
      zero: (offset, length, options) =>
        this.#asBase(offset, length, (at, bytes) => device.zero(at, bytes, options)),
      flush: () => device.flush(),
      extents: (offset, length, asked) => device.someExtents(offset, length, { contexts: asked }),
      close: async () => {},
    };
  }

  /** First it is known that the bytes are the mirror's, then the copy's older ones are waited for. */
  async #asMirror(offset: number, length: number, work: () => Promise<void>): Promise<void> {
    this.#written?.add(offset, length);
    if (this.#inFlight.size > 0) await this.#baseEnds(offset, offset + length);
    try {
      await work();
    } catch (error) {
      this.#failure ??= error;
      throw error;
    }
    this.#writes++;
    this.#bytes += length;
  }

  /** Waits for writes of the copy that are under way in a range. */
  async #baseEnds(offset: number, end: number): Promise<void> {
    const before = [...this.#inFlight].filter((base) => base.offset < end && base.end > offset);
    await Promise.allSettled(before.map(({ done }) => done));
  }

  /** What is left to the copy is found, and known to be under way, before anything else can happen. */
  async #asBase(
    offset: number,
    length: number,
    work: (offset: number, length: number) => Promise<void>,
  ): Promise<void> {
    const pieces = [...(this.#written?.missing(offset, length) ?? [])];
    await settleAll(
      pieces.map((piece) => {
        const done = work(piece.offset, piece.length);
        const base = { offset: piece.offset, end: piece.offset + piece.length, done };
        this.#inFlight.add(base);
        return done.finally(() => this.#inFlight.delete(base));
      }),
    );
  }
}
