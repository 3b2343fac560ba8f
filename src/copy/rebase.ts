import { dirname, resolve } from 'node:path';
import {
  type BackingName,
  type Device,
  type DeviceDescription,
  type ImageFormat,
  openDevice,
  openUnrecorded,
  parseDescription,
  type Qcow2Description,
  setBackingName,
} from '../block/index.js';
import { LacunaError, throwIfAborted } from '../errors/index.js';
import { Context, Status, visitTogether } from '../extent/index.js';
import { Turns } from '../util/index.js';
import { closeAfter } from './close-after.js';
import { filesOf } from './files-of.js';
import { sameFileAmong } from './partial-file.js';

/** Which image gets which backing file. */
export interface RebaseOptions {
  /** The image whose backing file changes: a qcow2 file. Nobody else may use it meanwhile. */
  image: string | DeviceDescription;
  /** The format of `image`, which must be qcow2; to be said where the name does not end so. */
  format?: ImageFormat | undefined;
  /** The new backing file, named as it shall stand in the image (relative to its folder), or null for none. */
  backing: BackingName | null;
  /** Only change the name: the caller knows that the new backing file shows the same as the old one. */
  unsafe?: boolean | undefined;
  /** Fires to end the work; it fails with ERR_ABORTED. The image keeps its old backing file then. */
  signal?: AbortSignal | undefined;
  /** Told about ten times a second how much of the disk has been gone through. */
  onProgress?(progress: RebaseProgress): void;
}

/** How far a rebase is. */
export interface RebaseProgress {
  /** Bytes of the disk that are as the new backing file needs them. */
  doneBytes: number;
  /** Bytes of the disk. */
  totalBytes: number;
}

/** What a rebase came to. */
export interface RebaseReport {
  /** Bytes that the image did not hold before, because its old backing file showed them. */
  writtenBytes: number;
}

/** Bytes compared at once, and the unit in which what differs is written. */
const PIECE = 1024 * 1024;
const UNIT = 64 * 1024;
/** Between two moments of progress. */
const PROGRESS_MS = 100;
/** How much of the disk's status is asked for at once. */
const WINDOW = 2 ** 34;

/**
 * Gives an image another backing file. What the disk shows stays the same: where the new backing file differs from the
 * old one, what the old one showed is written into the image first. So its bitmaps stay as they are, too.
 *
 * It can be repeated after a failure or a crash.
 *
 * @throws LacunaError ERR_DEVICE_FORMAT, ERR_DEVICE_LOCKED, ERR_IMAGE_CHAIN, ERR_QCOW2_UNSUPPORTED where the name does
 * not fit, and what opening, reading and writing throw.
 */
export async function rebase(options: RebaseOptions): Promise<RebaseReport> {
  const { image, format, backing, unsafe = false } = options;
  const description = typeof image === 'string' ? parseDescription(image, { format }) : image;
  if (description.driver !== 'qcow2' || description.file.driver !== 'file') {
    const name = typeof image === 'string' ? image : JSON.stringify(image);
    const message = `${name} is no qcow2 file, and only those have backing files; if it is one, say so (-f qcow2)`;
    throw new LacunaError('ERR_DEVICE_FORMAT', message);
  }
  if (unsafe && backing !== null) await refuseCircle(description, pathOf(description, backing));
  const writtenBytes = unsafe ? 0 : await keepContent(description, options);
  await setBackingName(description, backing);
  return { writtenBytes };
}

async function keepContent(description: Qcow2Description, options: RebaseOptions): Promise<number> {
  const { backing, signal } = options;
  const below = backing === null ? undefined : await openBacking(description, backing, signal);
  return await closeAfter(
    async () => {
      await refuseCircle(description, ...filesOf(below?.description));
      const device = await openUnrecorded(description);
      return await closeAfter(
        async () => {
          const written = await writeDifferences(device, below, options);
          await device.flush();
          return written;
        },
        () => device.close(),
      );
    },
    async () => below?.close(),
  );
}

/** An image cannot be below itself: nobody could open it any more. */
async function refuseCircle(
  { file }: Qcow2Description,
  ...below: readonly string[]
): Promise<void> {
  const [image] = filesOf(file);
  if ((await sameFileAmong(image, below)) === undefined) return;
  const message = `${image} would be its own backing file, at once or some way down: name an image that is not made of it`;
  throw new LacunaError('ERR_IMAGE_CHAIN', message, { device: image });
}

/** A relative name counts from the folder of the image. */
function pathOf({ file }: Qcow2Description, { filename }: BackingName): string {
  const [image] = filesOf(file);
  return resolve(dirname(resolve(image)), filename);
}

function openBacking(
  image: Qcow2Description,
  backing: BackingName,
  signal?: AbortSignal,
): Promise<Device> {
  const { filename, format } = backing;
  const { 'backing-folders': folders } = image;
  const path = { driver: 'file', filename: pathOf(image, backing) } as const;
  const described: Record<string, DeviceDescription> = {
    raw: path,
    qcow2: {
      driver: 'qcow2',
      file: path,
      // What is below the new backing file may lie where the image's own files may.
      ...(folders && { 'backing-folders': [dirname(path.filename), ...folders] }),
    },
  };
  const description = described[format];
  if (description !== undefined) return openDevice(description, { signal });
  const message = `${filename}: images of the format ${format} cannot be read here; if it shows the same as the old backing file, say so (--unsafe)`;
  throw new LacunaError('ERR_DEVICE_FORMAT', message, { device: filename });
}

/**
 * Writes what the image shows and does not hold, where the device that will be below it shows something else.
 *
 * @returns how many bytes that were.
 */
export async function writeDifferences(
  image: Device,
  below: Device | undefined,
  { signal, onProgress }: Pick<RebaseOptions, 'signal' | 'onProgress'>,
): Promise<number> {
  const turns = new Turns();
  const totalBytes = image.size;
  let told = performance.now();
  const tell = (doneBytes: number) => {
    if (performance.now() - told < PROGRESS_MS) return;
    told = performance.now();
    onProgress?.({ doneBytes, totalBytes });
  };
  const buffers = { old: Buffer.alloc(PIECE), fresh: Buffer.alloc(PIECE) };
  let written = 0;
  for (let start = 0; start < image.size; start += WINDOW) {
    const end = Math.min(image.size, start + WINDOW);
    for (const { offset, length } of await shownRanges(image, below, start, end, signal)) {
      for (let at = offset; at < offset + length; at += PIECE) {
        await turns.next();
        throwIfAborted(signal);
        tell(at);
        const range = { at, length: Math.min(PIECE, offset + length - at) };
        written += await writeDifference(image, below, range, buffers);
      }
    }
    tell(end);
  }
  onProgress?.({ doneBytes: totalBytes, totalBytes });
  return written;
}

/** The ranges that the image does not hold, but for those that read as zero now and will. */
async function shownRanges(
  image: Device,
  below: Device | undefined,
  start: number,
  end: number,
  signal?: AbortSignal,
) {
  const contexts = [Context.allocation, Context.depth];
  const lists = await image.extents(start, end - start, { contexts, signal });
  const there = Math.min(end, below?.size ?? 0);
  const ranges: { offset: number; length: number }[] = [];
  const visit = (isZero: (flags: readonly number[]) => boolean) => {
    return (offset: number, length: number, flags: readonly number[]) => {
      if (flags[1] !== 1 && !isZero(flags)) ranges.push({ offset, length });
    };
  };
  const wasZero = (flags: readonly number[]) => (flags[0] & Status.zero) !== 0;
  if (below === undefined || there <= start) {
    visitTogether(lists, end, visit(wasZero));
    return ranges;
  }
  const [fresh] = await below.extents(start, there - start, { signal });
  fresh.push(end - there, Status.zero);
  const staysZero = (flags: readonly number[]) => wasZero(flags) && (flags[2] & Status.zero) !== 0;
  visitTogether([...lists, fresh], end, visit(staysZero));
  return ranges;
}

async function writeDifference(
  image: Device,
  below: Device | undefined,
  { at, length }: { at: number; length: number },
  buffers: { old: Buffer; fresh: Buffer },
): Promise<number> {
  const old = buffers.old.subarray(0, length);
  const fresh = buffers.fresh.subarray(0, length);
  await image.read(at, old);
  const there = Math.max(0, Math.min(length, (below?.size ?? 0) - at));
  fresh.fill(0, there);
  if (there > 0) await below?.read(at, fresh.subarray(0, there));
  let written = 0;
  for (let from = 0; from < length; ) {
    // Up to the next multiple of the unit, so that no cluster is filled up twice.
    const to = Math.min(length, from + UNIT - ((at + from) % UNIT));
    if (old.compare(fresh, from, to, from, to) !== 0) {
      await image.write(at + from, old.subarray(from, to));
      written += to - from;
    }
    from = to;
  }
  return written;
}
