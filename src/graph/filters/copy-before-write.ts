import type { Bitmap } from '../../bitmap/index.js';
import {
  type CommonDescription,
  type DeviceDescription,
  type Driver,
  type DriverKind,
  flag,
  type Opening,
  oneOf,
  passThrough,
  timeout,
} from '../../block/index.js';
import type { DetectZeroes } from '../../copy/index.js';
import { LacunaError } from '../../errors/index.js';
import { DISK_AND_TARGET, type DiskAndTarget, openBoth } from './disk-and-target.js';
import { granularityFor } from './granularity.js';
import { KeptCopies } from './kept-copies.js';
import { SideError } from './side-error.js';
import { within } from './within.js';

/** Keeps what a disk was: what is about to be written is first copied to a target. */
export interface CopyBeforeWriteDescription extends CommonDescription {
  /** Copies what is about to be written. */
  driver: 'copy-before-write';
  /** The disk. */
  file: DeviceDescription | string;
  /** Where its old content goes: at least as large, and nobody else's. */
  target: DeviceDescription | string;
  /** Only what is dirty here, when the filter comes into use, is kept. */
  bitmap?: { node: string; name: string };
  /**
   * Where the copy fails: `break-guest-write` fails the write; `break-snapshot` lets it go on, and the old content is lost. Default
   * `break-guest-write`.
   */
  'on-cbw-error'?: 'break-guest-write' | 'break-snapshot';
  /** Old content that is nothing but zeroes is zeroed in the target, with `unmap` as a hole. Default `unmap`. */
  'detect-zeroes'?: DetectZeroes;
  /** The target reads as zero: old content that is zero need not be written. Default false. */
  'target-is-zero'?: boolean;
  /** A copy that takes longer than so many seconds has failed; 0: no limit. Default 0. */
  'cbw-timeout'?: number;
}

/** The disk as it is; beside that it keeps what the disk was when the filter came into use. */
export const copyBeforeWrite: DriverKind<CopyBeforeWriteDescription> = {
  keys: {
    ...DISK_AND_TARGET,
    bitmap: { read: bitmapName },
    'on-cbw-error': { read: oneOf('break-guest-write', 'break-snapshot') },
    'detect-zeroes': { read: oneOf('off', 'on', 'unmap') },
    'target-is-zero': { read: flag },
    'cbw-timeout': { read: timeout },
  },
  isFilter: true,
  open: async (wanted, opening) => {
    const devices = await openBoth(wanted, opening, 'the old content of');
    const bits = await bitsFor(wanted, opening);
    const shown = await opening.shownBitsOf?.(devices.disk);
    return new CopyBeforeWrite(devices, wanted, { bits, shown }).driver;
  },
};

/** Bits at the moment when they are asked for. */
type Bits = (() => Bitmap) | undefined;

interface BitsOfMoment {
  /** What is going to be read; all of it where absent. */
  readonly bits: Bits;
  /** What metadata contexts of the disk show. */
  readonly shown: (() => Map<string, Bitmap>) | undefined;
}

class CopyBeforeWrite {
  readonly driver: Driver;
  readonly #kept: KeptCopies;
  readonly #breaksSnapshot: boolean;
  readonly #limitMs: number;
  readonly #bits: BitsOfMoment;

  constructor(devices: DiskAndTarget, wanted: CopyBeforeWriteDescription, bits: BitsOfMoment) {
    const { disk, target } = devices;
    this.#kept = new KeptCopies(devices, granularityFor(target), {
      detectZeroes: wanted['detect-zeroes'] ?? 'unmap',
      targetIsZero: wanted['target-is-zero'] ?? false,
    });
    this.#breaksSnapshot = wanted['on-cbw-error'] === 'break-snapshot';
    this.#limitMs = (wanted['cbw-timeout'] ?? 0) * 1000;
    this.#bits = bits;
    const around = passThrough(
      disk,
      async ({ operation, offset, length }, pass) => {
        const changes = operation === 'write' || operation === 'zero' || operation === 'discard';
        if (changes && this.#kept.isHere(offset, length)) await this.#keep(offset, length);
        return await pass();
      },
      undefined,
      () => this.#kept.close(),
    );
    this.driver = Object.assign(around, {
      snapshot: this.#kept,
      firstUsed: () => this.#begin(),
      settled: async () => void (await this.#kept.idle),
    });
  }

  /** There is one moment, however often the users of the filter change. */
  #begin(): () => void {
    if (this.#kept.hasBegun) return () => {};
    const bits = this.#bits.bits?.();
    try {
      this.#kept.begin(bits, this.#bits.shown?.());
    } finally {
      bits?.free();
    }
    return () => this.#kept.undoBegin();
  }

  async #keep(offset: number, length: number): Promise<void> {
    try {
      const isKept = await within(this.#limitMs, this.#kept.take(offset, length, false));
      if (!isKept) throw tooLate(this.#limitMs);
    } catch (error) {
      const cause = error instanceof SideError ? error.cause : (error as Error);
      if (!this.#breaksSnapshot) throw unkept(cause, offset, length);
      this.#kept.break(cause);
    }
  }
}

async function bitsFor({ bitmap }: CopyBeforeWriteDescription, { bitsOf }: Opening): Promise<Bits> {
  if (bitmap === undefined) return undefined;
  if (bitsOf === undefined) throw new TypeError('bitmap needs a graph, whose nodes have names');
  return await bitsOf(bitmap.node, bitmap.name);
}

function bitmapName(value: unknown, key: string): { node: string; name: string } {
  const { node, name, ...others } = Object(value) as Record<string, unknown>;
  const isNamed = typeof node === 'string' && typeof name === 'string';
  if (isNamed && Object.keys(others).length === 0) return { node, name };
  throw new TypeError(`${key} must be { node, name }: a node and the name of one of its bitmaps`);
}

function tooLate(limitMs: number): LacunaError {
  return new LacunaError('ERR_TIMEOUT', `the copy took longer than ${limitMs} ms`);
}

function unkept(cause: Error, offset: number, length: number): LacunaError {
  const message = `${length} bytes at ${offset} were not changed, because what they were could not be kept: ${cause.message}`;
  return new LacunaError('ERR_DEVICE_IO', message, { cause, offset, length });
}
