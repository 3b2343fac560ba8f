/** What the files of an image do not have any more, although its tables name it. */

import { throwIfAborted } from '../../../../errors/index.js';
import { type Header, hasDataFile, RunKind, type Snapshot } from '../../../../qcow2/index.js';
import { Turns } from '../../../../util/index.js';
import { type BlockDevice, Device, type Range } from '../../../contract/index.js';
import { NullDriver } from '../../null/index.js';
import { readBitmapSections } from '../bitmaps/index.js';
import { readerOf, readSnapshots } from '../io/index.js';
import { Image, RunWalk } from '../read/index.js';
import type { Allocator } from '../write/index.js';

/**
 * The ranges of a disk that are missing and read as zero, in order, neighbours joined.
 *
 * @param image one that is read with `rescue`.
 * @param below those of the backing file, which count where it can be seen.
 */
export async function findMissing(
  image: Image,
  below: readonly Range[],
  signal?: AbortSignal,
): Promise<Range[]> {
  const found: { offset: number; length: number }[] = [];
  const add = (offset: number, length: number) => {
    const last = found.at(-1);
    if (last !== undefined && last.offset + last.length === offset) last.length += length;
    else found.push({ offset, length });
  };
  let next = 0;
  for await (const run of runsOf(image, signal)) {
    const end = run.offset + run.length;
    const isCut = run.kind === RunKind.compressed && (await image.isCut(run));
    if (run.missing || isCut) add(run.offset, run.length);
    if (run.kind !== RunKind.unallocated) continue;
    while (next < below.length && below[next].offset + below[next].length <= run.offset) next++;
    for (let i = next; i < below.length && below[i].offset < end; i++) {
      const from = Math.max(run.offset, below[i].offset);
      add(from, Math.min(end, below[i].offset + below[i].length) - from);
    }
  }
  return found;
}

/** An image that is about to be written. */
export interface CheckedImage {
  readonly header: Header;
  readonly file: BlockDevice;
  /** Where guest clusters lie, if not in `file`; undefined also where nothing will be written there. */
  readonly dataFile?: BlockDevice | undefined;
  readonly allocator: Allocator;
}

/**
 * Refuses to write an image whose file is cut short: when the file grows again, what was lost would be zeroes, and nobody
 * could tell. Only where clusters are in use behind the end is the whole image gone through: after a crash there may be
 * some that nothing names, and the last one may hold metadata, or be compressed.
 *
 * @throws LacunaError ERR_QCOW2_CORRUPT
 */
export async function refuseCut(image: CheckedImage, signal?: AbortSignal): Promise<void> {
  const { header, file, dataFile, allocator } = image;
  const isShort = dataFile !== undefined && dataFile.end < header.size;
  if (!isShort && !(await allocator.isUsedFrom(file.end))) return;
  for (const snapshot of [undefined, ...(await readSnapshots(file, header))]) {
    await refuseMissing(image, snapshot, signal);
  }
  const options = { file: readerOf(file), readOnly: true };
  for (const section of await readBitmapSections(header, file.name, options)) {
    if (!section.inconsistent) (await section.load()).free();
  }
}

async function refuseMissing(
  { header, file, dataFile }: CheckedImage,
  snapshot: Snapshot | undefined,
  signal?: AbortSignal,
): Promise<void> {
  // A data file that is not opened will not be written.
  const data = hasDataFile(header) ? (dataFile ?? endless()) : undefined;
  const parts = { header, file, ...(data && { dataFile: data }), ...(snapshot && { snapshot }) };
  const image = await Image.open(parts);
  try {
    // Each step looks whether the run is there, and fails if not.
    for await (const run of runsOf(image, signal)) {
      if (run.kind === RunKind.compressed) await image.isCut(run);
    }
  } finally {
    image.free();
  }
}

function endless(): BlockDevice {
  return new Device(new NullDriver({ driver: 'null' }));
}

async function* runsOf(image: Image, signal?: AbortSignal): AsyncGenerator<RunWalk> {
  const turns = new Turns();
  const walk = new RunWalk(image, 0, image.size);
  for (;;) {
    throwIfAborted(signal);
    await turns.next();
    const more = walk.next();
    if (!(more instanceof Promise ? await more : more)) return;
    yield walk;
  }
}
