import type { Bitmap } from '../bitmap/index.js';
import { Device, type ImageFormat, openDevice } from '../block/index.js';
import { throwIfAborted } from '../errors/index.js';
import { Turns } from '../util/index.js';
import { Arena, type ArenaBlock } from '../wasm/index.js';
import { closeAfter } from './close-after.js';
import { planGranularity } from './granularity.js';
import type { DeviceSource, TransferOptions } from './options.js';
import { type Plan, plan } from './plan.js';
import { settleAll } from './settle-all.js';
import type { Range } from './status-walk.js';
import { checkTransfer } from './transfer.js';

export interface CompareOptions extends Pick<TransferOptions, 'requests' | 'requestSize'> {
  a: DeviceSource;
  b: DeviceSource;
  aFormat?: ImageFormat;
  bFormat?: ImageFormat;
  /** Devices of different sizes are different, even if the rest of the larger one reads as zero. */
  strict?: boolean;
  signal?: AbortSignal;
  /** Told of every piece that was compared. */
  onProgress?(progress: { comparedBytes: number; totalBytes: number }): void;
}

export interface CompareReport {
  equal: boolean;
  /** The first byte that differs; absent where sizes alone made the difference. */
  offset?: number;
  /** Bytes of the larger device. */
  size: number;
  /** Bytes read from at least one side. */
  comparedBytes: number;
  /** Bytes left unread because both sides are known to read as zero. */
  skippedBytes: number;
  durationMs: number;
  warnings: string[];
}

const REQUEST_SIZE = 1024 * 1024;
const REQUESTS = 8;

/** Compares two devices by content; what reads as zero on both sides by their own status is not read. */
export async function compare(options: CompareOptions): Promise<CompareReport> {
  checkTransfer(options);
  const open = async (source: DeviceSource, format?: ImageFormat) =>
    source instanceof Device
      ? source
      : await openDevice(source, { format, signal: options.signal });
  const close = async (device: Device, given: DeviceSource) => {
    if (device !== given) await device.close();
  };
  const a = await open(options.a, options.aFormat);
  return closeAfter(
    async () => {
      const b = await open(options.b, options.bFormat);
      return closeAfter(
        () => compareDevices(a, b, options),
        () => close(b, options.b),
      );
    },
    () => close(a, options.a),
  );
}

async function compareDevices(
  a: Device,
  b: Device,
  options: CompareOptions,
): Promise<CompareReport> {
  const started = performance.now();
  const size = Math.max(a.size, b.size);
  const warnings: string[] = [];
  if (a.size !== b.size) {
    const told = `${a.name} has ${a.size} bytes, ${b.name} ${b.size}`;
    if (options.strict) {
      const durationMs = performance.now() - started;
      const nothing = { comparedBytes: 0, skippedBytes: 0, durationMs };
      return { equal: false, size, ...nothing, warnings: [told] };
    }
    warnings.push(`${told}: the rest of the larger one must read as zero`);
  }
  const sides = [await Side.of(a, size, options)];
  const either = sides[0].data.snapshot();
  try {
    sides.push(await Side.of(b, size, options));
    either.merge(sides[1].data);
    const totalBytes = either.dirtyBytes;
    const comparison = new Comparison(sides, either.ranges(), totalBytes, options);
    const offset = await comparison.run();
    return {
      equal: offset === undefined,
      ...(offset !== undefined && { offset }),
      size,
      comparedBytes: comparison.comparedBytes,
      skippedBytes: size - totalBytes,
      durationMs: performance.now() - started,
      warnings: [...warnings, ...sides.flatMap((side) => side.warnings)],
    };
  } finally {
    either.free();
    for (const side of sides) side.free();
  }
}

/** One of the two devices, with what it has to be read for. Behind its end it reads as zero. */
class Side {
  static async of(device: Device, size: number, { signal }: CompareOptions): Promise<Side> {
    const made = await plan({ source: device, granularity: planGranularity(size), signal });
    made.data.resize(size);
    return new Side(device, made);
  }

  readonly #device: Device;
  readonly #plan: Plan;

  private constructor(device: Device, made: Plan) {
    this.#device = device;
    this.#plan = made;
  }

  get data(): Bitmap {
    return this.#plan.data;
  }

  get warnings(): string[] {
    return this.#plan.warnings;
  }

  async read(offset: number, target: Uint8Array, signal?: AbortSignal): Promise<void> {
    const inside = Math.max(0, Math.min(target.length, this.#device.size - offset));
    const isData = inside > 0 && this.data.nextDirty(offset, offset + inside) !== -1;
    if (!isData) {
      target.fill(0);
      return;
    }
    target.fill(0, inside);
    await this.#device.read(offset, target.subarray(0, inside), { signal });
  }

  free(): void {
    this.#plan.data.free();
    this.#plan.zero.free();
  }
}

/** Reads both sides piece by piece, in order, several at once, up to the first difference. */
class Comparison {
  comparedBytes = 0;
  readonly #sides: readonly Side[];
  readonly #pieces: Iterator<Range>;
  readonly #totalBytes: number;
  readonly #options: CompareOptions;
  readonly #requestSize: number;
  readonly #turns = new Turns();
  #first = Number.POSITIVE_INFINITY;
  #failed = false;

  constructor(
    sides: readonly Side[],
    ranges: Iterable<Range>,
    totalBytes: number,
    options: CompareOptions,
  ) {
    this.#sides = sides;
    this.#requestSize = options.requestSize ?? REQUEST_SIZE;
    this.#pieces = cut(ranges, this.#requestSize);
    this.#totalBytes = totalBytes;
    this.#options = options;
  }

  /** The offset of the first byte that differs. */
  async run(): Promise<number | undefined> {
    const requests = this.#options.requests ?? REQUESTS;
    await settleAll(Array.from({ length: requests }, () => this.#lane()));
    return this.#first === Number.POSITIVE_INFINITY ? undefined : this.#first;
  }

  async #lane(): Promise<void> {
    const arena = Arena.default;
    const slots: ArenaBlock[] = [];
    try {
      for (const _side of this.#sides) slots.push(arena.allocate(this.#requestSize));
      for (;;) {
        await this.#turns.next();
        const { value: piece, done } = this.#pieces.next();
        // Pieces come in order: behind a difference there is nothing earlier to find.
        if (done || this.#failed || piece.offset > this.#first) return;
        const [a, b] = slots.map((slot) => slot.bytes.subarray(0, piece.length));
        await this.#compare(piece, a, b);
      }
    } catch (error) {
      this.#failed = true;
      throw error;
    } finally {
      for (const slot of slots) slot.free();
    }
  }

  async #compare({ offset, length }: Range, a: Uint8Array, b: Uint8Array): Promise<void> {
    const { signal, onProgress } = this.#options;
    throwIfAborted(signal);
    await settleAll([
      this.#sides[0].read(offset, a, signal),
      this.#sides[1].read(offset, b, signal),
    ]);
    if (Buffer.compare(a, b) !== 0) {
      const at = a.findIndex((byte, i) => byte !== b[i]);
      this.#first = Math.min(this.#first, offset + at);
    }
    this.comparedBytes += length;
    onProgress?.({ comparedBytes: this.comparedBytes, totalBytes: this.#totalBytes });
  }
}

function* cut(ranges: Iterable<Range>, size: number): Generator<Range, undefined> {
  for (const { offset, length } of ranges) {
    for (let done = 0; done < length; done += size) {
      yield { offset: offset + done, length: Math.min(size, length - done) };
    }
  }
}
