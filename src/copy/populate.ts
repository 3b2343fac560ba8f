import type { Bitmap } from '../bitmap/index.js';
import { type BlockDevice, type ImageFormat, isBlockDevice } from '../block/index.js';
import { LacunaError } from '../errors/index.js';
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
  /** Told about ten times a second, of the bytes of all sources whose status is known. */
  onProgress?(progress: { doneBytes: number; totalBytes: number }): void;
}

const checkPopulateOptions = optionCheck<PopulateOptions>({
  sources: { needed: `a list; each is ${A_DEVICE}` },
  targets: { needed: 'a list of Bitmaps' },
  sourceFormat: 'any',
  forceShare: 'flag',
  mode: 'any',
  signal: 'signal',
  onProgress: 'callback',
});

/** Between two moments of progress. */
const PROGRESS_MS = 100;

/**
 * Makes dirty in every target what is allocated in any of the sources, rounded outward to granules. It asks
 * for status as {@link plan} does, and never reads data. When it fails, what was found until then is dirty.
 *
 * @returns warnings: those of the sources, and that status was refused and taken for data.
 * @throws TypeError or RangeError for options that make no sense; LacunaError ERR_BITMAP_MISMATCH where a
 *   bitmap is not of the size of a source; else as {@link plan}.
 */
export async function populate(options: PopulateOptions): Promise<string[]> {
  checkPopulateOptions('populate', options);
  const { sources, sourceFormat, forceShare, targets, mode = 'full', signal } = options;
  if (mode !== 'full' && mode !== 'top') {
    throw new TypeError(`a bitmap is populated in mode full or top, not ${mode}`);
  }
  if (sources.length === 0) throw new TypeError('sources must name one device or more');
  if (targets.length === 0) throw new TypeError('targets must hold one bitmap or more');
  const scope = checkScope({ mode });
  const warnings: string[] = [];
  const totalBytes = targets[0].size * sources.length;
  for (const [i, source] of sources.entries()) {
    const told = teller(totalBytes, i * targets[0].size, options);
    if (isBlockDevice(source)) {
      warnings.push(...(await populateFrom(source, targets, { mode, signal, told })));
      continue;
    }
    const how = { format: sourceFormat, forceShare, signal };
    const device = await openForPlan(source, scope, how);
    const found = await closeAfter(
      () => populateFrom(device, targets, { mode, signal, told }),
      () => device.close(),
    );
    warnings.push(...found);
  }
  options.onProgress?.({ doneBytes: totalBytes, totalBytes });
  return warnings;
}

interface Populating {
  mode: 'full' | 'top';
  signal: AbortSignal | undefined;
  /** Told how far the source is known. */
  told(doneBytes: number): void;
}

function teller(totalBytes: number, before: number, { onProgress }: PopulateOptions) {
  let last = performance.now();
  return (doneBytes: number) => {
    const now = performance.now();
    if (now - last < PROGRESS_MS) return;
    last = now;
    onProgress?.({ doneBytes: before + doneBytes, totalBytes });
  };
}

async function populateFrom(
  source: BlockDevice,
  targets: readonly Bitmap[],
  { mode, signal, told }: Populating,
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
  const scope = checkScope({ mode });
  const refusals = await walkPlan({ ...scope, source, arena: Arena.default, signal, visit });
  return [...source.warnings, ...refusals];
}
