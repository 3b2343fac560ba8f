/** Opens the target of a stream, whose end nobody knows before it comes. */
import {
  type BlockDevice,
  createRawFile,
  type DeviceDescription,
  type FileDescription,
  fileOf,
  filesOf,
  imageOf,
  isBlockDevice,
  openDevice,
  parseDescription,
  resizeRawFile,
  sharing,
} from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import { counted } from '../../util/index.js';
import type { CopyOptions, DeviceSource } from '../options/index.js';
import { unfinishedWarning } from './clean.js';
import { withMade } from './new-file.js';
import { refuseSideFiles } from './participants.js';
import { reconnects } from './source.js';
import { isFileToMake } from './target.js';
import { statIfThere, UnfinishedFile } from './unfinished-file.js';

export interface StreamTarget {
  /** How a person would name it. */
  readonly name: string;
  /** There were bytes in it before, which are replaced. */
  readonly holds: boolean;
  /** Every byte reads as zero at first. */
  readonly isZero: boolean;
  /** The device, with room up to `end`; `idle` waits for all requests in flight, should it have to change. */
  upTo(end: number, idle: () => Promise<void>): Promise<BlockDevice>;
  /** After the last request: makes the target durable, and gives it its size and its name. Returns warnings. */
  finish(size: number, flush: boolean): Promise<string[]>;
  /** After a failure: removes what was made and not written to. Never fails. */
  removeUnfinished(): Promise<void>;
  /**
   * After a failure: leaves what was written so that nobody takes it for whole, and returns the unfinished file, if it is
   * one. Never fails.
   */
  keepUnfinished(): Promise<string | undefined>;
  /** Closes what was opened here. */
  close(): Promise<void>;
}

export interface StreamTargetOptions
  extends Pick<CopyOptions, 'targetFormat' | 'targetIsZero' | 'signal'> {
  target: DeviceSource;
}

/** A file is made beside its name (see unfinished-file.ts) and grows; everything else is written in place. */
export async function openStreamTarget(options: StreamTargetOptions): Promise<StreamTarget> {
  const { target, targetFormat: format, signal, targetIsZero: told = false } = options;
  if (isBlockDevice(target)) return new InPlace(target, told, false);
  refuseSideFiles([[target, format]]);
  const given = typeof target === 'string' ? parseDescription(target, { format }) : target;
  const description = sharing(given);
  const file = fileOf(description);
  if (file !== undefined && (await isFileToMake(file))) {
    return await NewFileTarget.create(description, file, signal);
  }
  await refuseNewImage(description);
  return new InPlace(await open(description, signal), told, true);
}

/** An image says how large its disk is before it holds anything. */
async function refuseNewImage(description: DeviceDescription): Promise<void> {
  const [path] = imageOf(description) ? filesOf(description) : [];
  if (path === undefined || (await statIfThere(path)) !== undefined) return;
  const message = `${path} cannot be made from a stream, whose size nobody knows before it ends: copy it to a raw file first, or make the image beforehand`;
  throw new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: path });
}

function open(description: DeviceDescription, signal?: AbortSignal, knownZero?: boolean) {
  return openDevice(description, { writable: true, signal, ...(knownZero && { knownZero }) });
}

class InPlace implements StreamTarget {
  readonly name: string;
  readonly holds: boolean;
  readonly isZero: boolean;
  readonly #device: BlockDevice;
  readonly #ours: boolean;

  constructor(device: BlockDevice, told: boolean, ours: boolean) {
    this.#device = device;
    this.#ours = ours;
    this.name = device.name;
    // What is not written stays as it is.
    this.holds = false;
    this.isZero = told || device.capabilities.knownZero;
  }

  async upTo(end: number): Promise<BlockDevice> {
    const { name, size } = this.#device;
    if (end <= size) return this.#device;
    const message = `${name} has ${size} bytes, and the stream has more: give it a larger target`;
    throw new LacunaError('ERR_COPY_MISMATCH', message, { device: name });
  }

  async finish(size: number, flush: boolean): Promise<string[]> {
    const device = this.#device;
    if (flush || reconnects(device)) await device.flush();
    const warnings: string[] = [];
    if (device.size > size) {
      const more = device.size - size;
      warnings.push(
        `${device.name} is ${counted(more, 'byte')} larger than the stream; those were left as they were`,
      );
    }
    if (flush && !device.capabilities.flush) {
      warnings.push(
        `${device.name} cannot flush, so nobody knows when the copy will be durable there`,
      );
    }
    return warnings;
  }

  async removeUnfinished(): Promise<void> {}

  async keepUnfinished(): Promise<undefined> {}

  async close(): Promise<void> {
    if (this.#ours) await this.#device.close();
  }
}

/** The size of a file at first; it takes no space. */
const FIRST_SIZE = 2 ** 30;

/** Beyond this a file grows by as much, rather than to twice its size, for file systems that have an end. */
const MOST_GROWTH = 2 ** 36;

class NewFileTarget implements StreamTarget {
  readonly name: string;
  readonly holds: boolean;
  readonly isZero = true;
  readonly #file: UnfinishedFile;
  readonly #description: DeviceDescription;
  readonly #unfinished: readonly string[];
  #device: BlockDevice;

  static async create(
    description: DeviceDescription,
    { filename }: FileDescription,
    signal: AbortSignal | undefined,
  ): Promise<NewFileTarget> {
    const unfinished = unfinishedWarning([filename]);
    const file = await UnfinishedFile.create(filename, {
      sources: [],
      make: (path, how) => createRawFile(path, FIRST_SIZE, { ...how, signal }),
    });
    const made = withMade(description, file);
    try {
      return new NewFileTarget(file, made, await open(made, signal, true), unfinished);
    } catch (error) {
      await file.removeUnfinished();
      throw error;
    }
  }

  private constructor(
    file: UnfinishedFile,
    description: DeviceDescription,
    device: BlockDevice,
    unfinished: readonly string[],
  ) {
    this.name = file.name;
    this.holds = file.replacedBytes > 0;
    this.#unfinished = unfinished;
    this.#file = file;
    this.#description = description;
    this.#device = device;
  }

  async upTo(end: number, idle: () => Promise<void>): Promise<BlockDevice> {
    if (end <= this.#device.size) return this.#device;
    await idle();
    await this.#resize(this.#device.size + Math.min(this.#device.size, MOST_GROWTH));
    return this.#device;
  }

  async finish(size: number, flush: boolean): Promise<string[]> {
    await this.#resize(size);
    if (flush) await this.#device.flush();
    return [...this.#unfinished, ...(await this.#file.finish(flush))];
  }

  removeUnfinished(): Promise<void> {
    return this.#file.removeUnfinished();
  }

  keepUnfinished(): Promise<string | undefined> {
    return this.#file.keepUnfinished();
  }

  close(): Promise<void> {
    this.#file.release();
    return this.#device.close();
  }

  /** A device keeps its size, so the file is opened anew: by one at a time, since it is locked. */
  async #resize(size: number): Promise<void> {
    await this.#device.close();
    resizeRawFile(this.#file.path, size);
    this.#device = await open(this.#description);
  }
}
