import type { Bitmap } from '../bitmap/index.js';
import { type BlockDevice, type ImageFormat, isBlockDevice } from '../block/index.js';
import { LacunaError } from '../errors/index.js';
import { Job, type JobControl } from '../job/index.js';
import { closeAfter, optionCheck } from '../util/index.js';
import { Arena } from '../wasm/index.js';
import { A_DEVICE, checkScope, type DeviceSource } from './options/index.js';
import { openForPlan, walkPlan } from './plan/index.js';

/** Which devices say what is allocated, and which bitmaps take it in. */
export interface PopulateOptions {
  /** Devices of one size, such as the layers of a chain. Those that the caller has opened stay open. */
  sources: readonly DeviceSource[];
  /** The format inside paths. Default: from each path's ending. */
  sourceFormat?: ImageFormat | undefined;
  /** Read although others may be writing; see OpenOptions. */
  forceShare?: boolean | undefined;
  /** Bitmaps of that size and of any granularity. What is dirty in them stays dirty. */
  targets: readonly Bitmap[];
  /**
   * `full`: all that does not read as zero. `top`: all that the top layer of each source holds, zeroes
   * included. Default `full`.
   */
  mode?: 'full' | 'top' | undefined;
  /** Fires to end the work; it fails with ERR_ABORTED. */
  signal?: AbortSignal | undefined;
}

const checkPopulateOptions = optionCheck<PopulateOptions>({
  sources: { needed: `a list; each is ${A_DEVICE}` },
  targets: { needed: 'a list of Bitmaps' },
  sourceFormat: 'any',
  forceShare: 'flag',
  mode: 'any',
  signal: 'signal',
});

/**
 * Makes dirty in every target what is allocated in any of the sources, rounded outward to granules. It asks
 * for status as {@link plan} does, and never reads data, so that it keeps to every rate. `doneBytes` of its progress are the
 * bytes of all sources whose status is known. When it fails, what was found until then is dirty.
 *
 * @returns a job whose report are warnings: those of the sources, and that status was refused and taken for data.
 * @throws TypeError or RangeError for options that make no sense. Everything else rejects the job: ERR_BITMAP_MISMATCH
 *   where a bitmap is not of the size of a source; ERR_JOB_STOPPED after `stop()`; else as {@link plan}.
 */
export function populate(options: PopulateOptions): Job<string[]> {
  checkPopulateOptions('populate', options);
  const { sources, targets, mode = 'full', signal } = options;
  if (mode !== 'full' && mode !== 'top') {
    throw new TypeError(`a bitmap is populated in mode full or top, not ${mode}`);
  }
  if (sources.length === 0) throw new TypeError('sources must name one device or more');
  if (targets.length === 0) throw new TypeError('targets must hold one bitmap or more');
  const totalBytes = targets[0].size * sources.length;
  let doneBytes = 0;
  const told = (bytes: number) => {
    doneBytes = Math.max(doneBytes, bytes);
  };
  return new Job<string[]>({
    what: 'a populate',
    signal,
    work: (job) => populateAll(options, job, told),
    counted: () => ({ totalBytes, doneBytes }),
  });
}

async function populateAll(
  { sources, sourceFormat: format, forceShare, targets, mode = 'full' }: PopulateOptions,
  job: JobControl,
  told: (doneBytes: number) => void,
): Promise<string[]> {
  const warnings: string[] = [];
  for (const [i, source] of sources.entries()) {
    const before = i * targets[0].size;
    const work = { targets, mode, job, told: (doneBytes: number) => told(before + doneBytes) };
    if (isBlockDevice(source)) {
      warnings.push(...(await populateFrom(source, work)));
      continue;
    }
    const how = { format, forceShare, signal: job.ending };
    const device = await openForPlan(source, checkScope({ mode }), how);
    const found = await closeAfter(
      () => populateFrom(device, work),
      () => device.close(),
    );
    warnings.push(...found);
  }
  return warnings;
}

interface Populating {
  targets: readonly Bitmap[];
  mode: 'full' | 'top';
  job: JobControl;
  /** Told how far the source is known. */
  told(doneBytes: number): void;
}

async function populateFrom(
  source: BlockDevice,
  { targets, mode, job, told }: Populating,
): Promise<string[]> {
  const other = targets.find(({ size }) => size !== source.size);
  if (other !== undefined) {
    const message = `The bitmap is of ${other.size} bytes and ${source.name} of ${source.size}: they must be the same size`;
    throw new LacunaError('ERR_BITMAP_MISMATCH', message, { device: source.name });
  }
  const visit = (offset: number, length: number, isZero: boolean) => {
    told(offset + length);
    if (isZero && mode === 'full') return;
    for (const target of targets) target.set(offset, length);
  };
  const refusals = await walkPlan({
    scope: checkScope({ mode }),
    source,
    arena: Arena.default,
    signal: job.ending,
    mayAsk: () => job.next(),
    visit,
  });
  told(source.size);
  return [...source.warnings, ...refusals];
}
