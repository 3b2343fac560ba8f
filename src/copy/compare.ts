import { type BlockDevice, type ImageFormat, isBlockDevice, openDevice } from '../block/index.js';
import { JOB_OPTIONS, Job, type JobControl, type JobOptions } from '../job/index.js';
import { closeAfter, optionCheck, settleAll } from '../util/index.js';
import type { Arena } from '../wasm/index.js';
import { refuseSideFiles } from './ends/index.js';
import { DEVICE, type DeviceSource, TRANSFER, type TransferOptions } from './options/index.js';
import { type Plan, plan, planGranularity } from './plan/index.js';
import { Comparison, checkTransfer } from './run/index.js';
import { freeArena, takeArena } from './threads/index.js';

/** What `compare` compares, and how hard it drives both sides. */
export interface CompareOptions extends TransferOptions, JobOptions {
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
}

const checkCompareOptions = optionCheck<CompareOptions>({
  ...TRANSFER,
  ...JOB_OPTIONS,
  a: DEVICE,
  b: DEVICE,
  aFormat: 'any',
  bFormat: 'any',
  strict: 'flag',
  forceShare: 'flag',
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

/**
 * Compares two devices by content; what reads as zero on both sides by their own status is not read. `doneBytes` of its
 * progress are bytes read from at least one side.
 *
 * @throws TypeError or RangeError for options that make no sense. Everything else rejects the job: what opening and
 *   reading throw, ERR_JOB_STOPPED after `stop()`, and ERR_ABORTED when `signal` fires.
 */
export function compare(options: CompareOptions): Job<CompareReport> {
  checkCompareOptions('compare', options);
  checkTransfer(options);
  const { rate, signal } = options;
  let comparison: Comparison | undefined;
  return new Job<CompareReport>({
    what: 'a comparison',
    rate,
    signal,
    work: (job) =>
      withBoth(options, job.ending, (...sides) =>
        compareDevices(sides, options, job, (begun) => {
          comparison = begun;
        }),
      ),
    counted: () => {
      const { totalBytes = 0, comparedBytes: doneBytes = 0 } = comparison ?? {};
      return { totalBytes, doneBytes };
    },
  });
}

/** Opens both sides for some work, and closes those that it has opened. */
async function withBoth(
  { a: first, aFormat, b: second, bFormat, forceShare }: CompareOptions,
  signal: AbortSignal,
  work: (a: BlockDevice, b: BlockDevice) => Promise<CompareReport>,
): Promise<CompareReport> {
  refuseSideFiles([
    [first, aFormat],
    [second, bFormat],
  ]);
  const open = async (source: DeviceSource, format?: ImageFormat) =>
    isBlockDevice(source) ? source : await openDevice(source, { format, forceShare, signal });
  const close = async (device: BlockDevice, given: DeviceSource) => {
    if (device !== given) await device.close();
  };
  const a = await open(first, aFormat);
  return closeAfter(
    async () => {
      const b = await open(second, bFormat);
      return closeAfter(
        () => work(a, b),
        () => close(b, second),
      );
    },
    () => close(a, first),
  );
}

async function compareDevices(
  sides: readonly [BlockDevice, BlockDevice],
  options: TransferOptions & Pick<CompareOptions, 'strict'>,
  job: JobControl,
  begun: (comparison: Comparison) => void,
): Promise<CompareReport> {
  const started = performance.now();
  const [a, b] = sides;
  const size = Math.max(a.size, b.size);
  const told = a.size === b.size ? [] : [`${a.name} has ${a.size} bytes, ${b.name} ${b.size}`];
  if (options.strict && told.length > 0) {
    const durationMs = performance.now() - started;
    const nothing = { comparedBytes: 0, skippedBytes: 0, threads: 0, durationMs };
    return { equal: false, size, ...nothing, warnings: told };
  }
  const warnings = told.map((what) => `${what}: the rest of the larger one must read as zero`);
  const { found, comparison } = await compareContent(sides, options, job, begun);
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
    warnings: [...warnings, ...found.warnings],
  };
}

async function compareContent(
  [a, b]: readonly [BlockDevice, BlockDevice],
  transfer: TransferOptions,
  job: JobControl,
  begun: (comparison: Comparison) => void,
) {
  const size = Math.max(a.size, b.size);
  const arena = takeArena();
  const planning = [a, b].map((device) => planSide(device, size, arena, job.ending));
  // Where one fails, the other is waited for: its device may be closed then.
  await settleAll(planning);
  const plans = await Promise.all(planning);
  const either = plans[0].data.snapshot();
  either.merge(plans[1].data);
  const comparison = new Comparison({
    transfer,
    a: { device: a, data: plans[0].data },
    b: { device: b, data: plans[1].data },
    plan: either,
    arena,
    job,
  });
  begun(comparison);
  const { offset, warnings } = await comparison.run();
  for (const { data, zero } of plans) {
    data.free();
    zero.free();
  }
  either.free();
  // After a failure it is dropped instead: a worker that had to be ended may hold one of its locks.
  freeArena(arena);
  const told = plans.flatMap((made) => made.warnings);
  return { comparison, found: { offset, warnings: [...told, ...warnings] } };
}

/** What a device has to be read for; behind its end, up to the size of the larger one, it reads as zero. */
async function planSide(
  source: BlockDevice,
  size: number,
  arena: Arena,
  signal: AbortSignal,
): Promise<Plan> {
  const made = await plan({ source, granularity: planGranularity(size), arena, signal });
  made.data.resize(size);
  return made;
}
