import { type BlockDevice, type ImageFormat, isBlockDevice, openDevice } from '../block/index.js';
import { closeAfter, optionCheck } from '../util/index.js';
import type { Arena } from '../wasm/index.js';
import { refuseSideFiles } from './ends/index.js';
import { DEVICE, type DeviceSource, TRANSFER, type TransferOptions } from './options/index.js';
import { type Plan, plan, planGranularity } from './plan/index.js';
import { Comparison, checkTransfer } from './run/index.js';
import { freeArena, takeArena } from './threads/index.js';

/** What `compare` compares, and how hard it drives both sides. */
export interface CompareOptions extends TransferOptions {
  /** One device. Those that the caller has opened stay open. */
  a: DeviceSource;
  /** The other one. */
  b: DeviceSource;
  /** The format inside a path that is `a`. Default: from the path's ending. */
  aFormat?: ImageFormat;
  /** The format inside a path that is `b`. Default: from the path's ending. */
  bFormat?: ImageFormat;
  /** Devices of different sizes are different, even if the rest of the larger one reads as zero. */
  strict?: boolean;
  /** Read both although others may be writing; see OpenOptions. */
  forceShare?: boolean;
  /** Fires to end the work; it fails with ERR_ABORTED. */
  signal?: AbortSignal;
  /** Told about ten times a second. What it throws fails the comparison. */
  onProgress?(progress: { comparedBytes: number; totalBytes: number }): void;
}

const checkCompareOptions = optionCheck<CompareOptions>({
  ...TRANSFER,
  a: DEVICE,
  b: DEVICE,
  aFormat: 'any',
  bFormat: 'any',
  strict: 'flag',
  forceShare: 'flag',
  signal: 'signal',
  onProgress: 'callback',
});

/** What a comparison found. */
export interface CompareReport {
  /** Whether both read the same, the end of the larger one being zero where sizes may differ. */
  equal: boolean;
  /** The first byte that differs; absent where sizes alone made the difference. */
  offset?: number;
  /** Bytes of the larger device. */
  size: number;
  /** Bytes read from at least one side. */
  comparedBytes: number;
  /** Bytes left unread because both sides are known to read as zero. */
  skippedBytes: number;
  /** Worker threads; 0 when the calling thread did it all. */
  threads: number;
  /** Milliseconds from the call to the report. */
  durationMs: number;
  /** What a person should know although it succeeded. */
  warnings: string[];
}

/** Between two moments of progress. */
const PROGRESS_MS = 100;

/** Compares two devices by content; what reads as zero on both sides by their own status is not read. */
export async function compare(options: CompareOptions): Promise<CompareReport> {
  checkCompareOptions('compare', options);
  checkTransfer(options);
  const { a: first, aFormat, b: second, bFormat, forceShare, signal } = options;
  refuseSideFiles([
    [first, aFormat],
    [second, bFormat],
  ]);
  const open = async (source: DeviceSource, format?: ImageFormat) =>
    isBlockDevice(source) ? source : await openDevice(source, { format, forceShare, signal });
  const close = async (device: BlockDevice, given: DeviceSource) => {
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
  a: BlockDevice,
  b: BlockDevice,
  options: CompareOptions,
): Promise<CompareReport> {
  const started = performance.now();
  const size = Math.max(a.size, b.size);
  const warnings: string[] = [];
  if (a.size !== b.size) {
    const told = `${a.name} has ${a.size} bytes, ${b.name} ${b.size}`;
    if (options.strict) {
      const durationMs = performance.now() - started;
      const nothing = { comparedBytes: 0, skippedBytes: 0, threads: 0, durationMs };
      return { equal: false, size, ...nothing, warnings: [told] };
    }
    warnings.push(`${told}: the rest of the larger one must read as zero`);
  }
  const arena = takeArena();
  const plans = await Promise.all([a, b].map((device) => planSide(device, size, arena, options)));
  const either = plans[0].data.snapshot();
  either.merge(plans[1].data);
  const stop = new AbortController();
  const comparison = new Comparison({
    ...options,
    a: { device: a, data: plans[0].data },
    b: { device: b, data: plans[1].data },
    plan: either,
    arena,
    signal: AbortSignal.any([stop.signal, ...(options.signal ? [options.signal] : [])]),
  });
  const found = await tellingProgress(comparison, options, stop);
  for (const { data, zero } of plans) {
    data.free();
    zero.free();
  }
  either.free();
  // After a failure it is dropped instead: a worker that had to be ended may hold one of its locks.
  freeArena(arena);
  const { offset } = found;
  const { totalBytes, comparedBytes, threads } = comparison;
  return {
    equal: offset === undefined,
    ...(offset !== undefined && { offset }),
    size,
    comparedBytes,
    skippedBytes: size - totalBytes,
    threads,
    durationMs: performance.now() - started,
    warnings: [...warnings, ...plans.flatMap((made) => made.warnings), ...found.warnings],
  };
}

/** What a device has to be read for; behind its end, up to the size of the larger one, it reads as zero. */
async function planSide(
  source: BlockDevice,
  size: number,
  arena: Arena,
  { signal }: CompareOptions,
): Promise<Plan> {
  const made = await plan({ source, granularity: planGranularity(size), arena, signal });
  made.data.resize(size);
  return made;
}

/** Runs a comparison, and ends it where the listener throws. */
async function tellingProgress(
  comparison: Comparison,
  { onProgress }: CompareOptions,
  stop: AbortController,
) {
  const failures: unknown[] = [];
  const tell = () => {
    const { comparedBytes, totalBytes } = comparison;
    try {
      onProgress?.({ comparedBytes, totalBytes });
    } catch (error) {
      failures.push(error);
      stop.abort();
    }
  };
  const timer = setInterval(tell, PROGRESS_MS);
  try {
    const found = await comparison.run();
    tell();
    if (failures.length === 0) return found;
  } catch (error) {
    failures.push(error);
  } finally {
    clearInterval(timer);
  }
  throw failures[0];
}
