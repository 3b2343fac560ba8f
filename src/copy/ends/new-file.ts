/** What a copy makes where there is a file to be made: a raw disk, or an image. */
import { dirname, resolve } from 'node:path';
import { Bitmap } from '../../bitmap/bits/index.js';
import {
  changeUnfiltered,
  createQcow2,
  createRawFile,
  type DeviceDescription,
  type FileDescription,
  fileOf,
  imageOf,
  layOutQcow2,
  pathOfNamed,
  type Qcow2Description,
  type RawPreallocation,
  takesKey,
} from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import { type CopyOptions, isPartial, type PlanScope } from '../options/index.js';
import { type CarriedBitmaps, type MadeImage, removeBitmaps } from './carry-bitmaps.js';
import { type Increment, layOutIncrement } from './increment-layout.js';
import type { HowMade, UnfinishedFile } from './unfinished-file.js';

/** What of the options of a copy says how a new image is made. */
export type NewImageChoices = PlanScope &
  Pick<
    CopyOptions,
    'image' | 'baseIsKnown' | 'compress' | 'preallocation' | 'carryBitmaps' | 'resume'
  >;

/** What a new image is given beside, and what ends its making. */
export interface Making {
  readonly bitmaps: CarriedBitmaps | undefined;
  readonly signal: AbortSignal;
}

/** Where a file is, and which it is, should that be known. */
type Made = Pick<FileDescription, 'inode'> & { readonly path: string };

/** A kind of file, and how it is made at any path. */
export interface NewFile {
  /** Its name when it is whole. */
  readonly filename: string;
  /** Every byte of it reads as zero at first. */
  readonly isZero: boolean;
  /** What a later run must ask for to go on with it. */
  readonly binding: Readonly<Record<string, string>>;
  /** A second file that belongs to it. */
  readonly dataFile?: {
    readonly filename: string;
    make(path: string, how: HowMade): Promise<void>;
  };
  /** What it is told when it is closed is not all in the file before. */
  readonly keepsBack: boolean;
  make(path: string, how: HowMade): Promise<void>;
  /** How it is opened. */
  describe(made: Made, dataFile?: UnfinishedFile): DeviceDescription;
  /** Makes it anew, when it is known what will be written, so that nothing but data is written then. */
  layOut?(made: MadeImage, increment: Increment): Promise<void>;
  /** Adds what comes last, when all else is written and nobody has the file open. */
  finish?(made: MadeImage): Promise<void>;
  /** Takes away what `finish` has added in a run that died behind it. */
  unfinish?(made: MadeImage): Promise<void>;
}

export function newRawFile(
  description: DeviceDescription,
  { filename }: FileDescription,
  size: number,
  { preallocation }: Pick<CopyOptions, 'preallocation'>,
  signal: AbortSignal,
): NewFile {
  return {
    filename,
    isZero: true,
    // The same name and the same notes may be used for an image the next time.
    binding: { "target's format": 'raw' },
    keepsBack: false,
    make: (path, how) =>
      // A raw file has no metadata: the name is refused there.
      createRawFile(path, size, {
        ...how,
        preallocation: preallocation as RawPreallocation | undefined,
        signal,
      }),
    describe: (made) => withMade(description, made),
  };
}

/** A description of a file that is made now, which cannot be the one that had the name, should that be said. */
export function withMade(description: DeviceDescription, { path, inode }: Made): DeviceDescription {
  return changeUnfiltered(description, (own) => {
    const { inode: _, ...file } = own as FileDescription;
    return { ...file, filename: path, ...(inode !== undefined && { inode }) };
  });
}

const DEFAULT_CLUSTER_SIZE = 64 * 1024;

/** @throws TypeError for options that contradict each other; LacunaError ERR_DEVICE_UNSUPPORTED. */
export function newImage(
  target: DeviceDescription,
  description: Qcow2Description,
  file: FileDescription,
  size: number,
  options: NewImageChoices,
  { bitmaps, signal }: Making,
): NewFile {
  checkImage(options);
  const { image = {}, compress = description.compress, preallocation } = options;
  const { backing, dataFile, clusterSize = DEFAULT_CLUSTER_SIZE } = image;
  const made = madeBy(options, size);
  const below = backing && describeBacking(file.filename, backing);
  const folders = below && { 'backing-folders': foldersOf(description, file.filename, below) };
  const isLaidOut = !compress && (backing === undefined || isPlain(image));
  refuseResume(file.filename, options, isLaidOut);
  // What is laid out shows nothing of its base while it is written.
  const layers =
    isLaidOut && made.backingIsKnown ? { backing: null } : { backing: below ?? null, ...folders };
  const how = isLaidOut ? ({ mapping: 'fixed' } as const) : { compress };
  const describe = (image: Made, data?: UnfinishedFile) =>
    describeImage(target, { ...description, ...layers, ...how }, image, data);
  return {
    filename: file.filename,
    isZero: backing === undefined,
    binding: {
      "target's format": formatText({ ...image, preallocation, bitmaps: bitmaps?.names }),
    },
    keepsBack: !isLaidOut,
    ...(dataFile !== undefined && {
      dataFile: {
        // A folder stays one: no file is made of its name.
        filename: pathOfNamed(dataFile, file.filename) + (dataFile.endsWith('/') ? '/' : ''),
        make: (path, how) =>
          createRawFile(path, Math.ceil(size / 512) * 512, {
            ...how,
            preallocation: preallocation === 'metadata' ? 'off' : preallocation,
            signal,
          }),
      },
    }),
    make: (path, how) => createQcow2(path, { ...made, ...how }),
    describe,
    ...(isLaidOut && {
      layOut: async (image, { data, zero }) => {
        const { path, inode } = image;
        if (below !== undefined) {
          // What may be followed from the image may be followed from its base, which is opened alone here.
          const base = takesKey(below, 'backing-folders') ? { ...below, ...folders } : below;
          const how = { path, image: describe(image), base, signal };
          await layOutIncrement(
            { ...how, options: { ...made, clusterSize, inode } },
            { data, zero },
          );
          return;
        }
        const mapped = new Bitmap({ size, granularity: clusterSize, arena: data.arena });
        try {
          mapped.merge(data);
          await layOutQcow2(path, { ...made, preallocation, inode }, mapped);
        } finally {
          mapped.free();
        }
      },
    }),
    ...(bitmaps && { finish: bitmaps.addTo, unfinish: removeBitmaps }),
  };
}

/** The options of the new image. */
function madeBy({ image, baseIsKnown = false }: NewImageChoices, size: number) {
  const dataFileMade = image?.dataFile !== undefined;
  return { ...image, size, backingIsKnown: baseIsKnown, ...(dataFileMade && { dataFileMade }) };
}

/** How the image is made, for a message. */
function formatText(how: object): string {
  const options = JSON.stringify(how);
  return options === '{}' ? 'qcow2' : `qcow2 with ${options}`;
}

/** A target with an image in its new files. */
function describeImage(
  target: DeviceDescription,
  image: Qcow2Description,
  made: Made,
  data: UnfinishedFile | undefined,
): DeviceDescription {
  const dataFile = data && ({ driver: 'file', filename: data.path, inode: data.inode } as const);
  return changeUnfiltered(target, () => ({
    ...image,
    file: withMade(image.file, made),
    ...(dataFile && { 'data-file': dataFile }),
  }));
}

function checkImage(options: NewImageChoices): void {
  const { image: { backing, dataFile, version } = {}, compress, preallocation = 'off' } = options;
  if (options.carryBitmaps && version === 2) {
    throw new TypeError('an image of version 2 keeps no bitmaps: make it one of version 3');
  }
  if (backing !== undefined && !isPartial(options)) {
    throw new TypeError(
      'a full copy holds all of the disk, so that nothing of a backing file would be seen: leave out the backing file, or copy only what is dirty, or what the top layer holds',
    );
  }
  if (compress && preallocation !== 'off') {
    throw new TypeError('what is preallocated cannot be compressed: leave out one of the two');
  }
  if (compress && dataFile !== undefined) {
    throw new TypeError('what lies in a data file cannot be compressed: leave out one of the two');
  }
  if (backing !== undefined && preallocation !== 'off') {
    throw new TypeError(
      'what is preallocated would hide the backing file: leave out one of the two',
    );
  }
}

/** What an earlier run has left can only be gone on with where every write had its place from the start. */
function refuseResume(
  filename: string,
  { image = {}, baseIsKnown, compress, resume }: NewImageChoices,
  isLaidOut: boolean,
): void {
  // Who knows the base knows as well that it stays what it was.
  const isOverKnown = isLaidOut && baseIsKnown;
  const why =
    (compress && 'is compressed') ||
    (image.backing && !isOverKnown && 'has a backing file') ||
    (image.dataFile !== undefined && 'has a data file');
  if (resume === undefined || !why) return;
  const message = `${filename} is a new image that ${why}, and the copy to it cannot be resumed: leave out the resume file`;
  throw new LacunaError('ERR_DEVICE_UNSUPPORTED', message, { device: filename });
}

/** Over a base, only whole clusters that can say that they are zero are worth laying out. */
function isPlain({ extendedL2, dataFile, version }: NonNullable<CopyOptions['image']>): boolean {
  return !extendedL2 && dataFile === undefined && version !== 2;
}

type Backing = NonNullable<NonNullable<CopyOptions['image']>['backing']>;

/** The backing file by its name in the image, which is relative to the image's folder. */
function describeBacking(image: string, { filename, format }: Backing): DeviceDescription {
  const file = { driver: 'file', filename: pathOfNamed(filename, image) } as const;
  if (format === 'raw') return file;
  if (format === 'qcow2') return { driver: 'qcow2', file };
  throw new TypeError(`a backing file must be raw or qcow2 to be read here, not ${format}`);
}

/** Whoever names a backing file allows what that names in its own folder. */
function foldersOf(
  { 'backing-folders': said = [] }: Qcow2Description,
  image: string,
  backing: DeviceDescription,
): string[] {
  const file = fileOf(imageOf(backing)?.file ?? backing);
  const below = file === undefined ? [] : [dirname(file.filename)];
  return [dirname(resolve(image)), ...below, ...said];
}

/** An image that is whole may have got what it could not have while it was written. */
export function asItIs(description: DeviceDescription): DeviceDescription {
  return changeUnfiltered(description, (own) => {
    if (!takesKey(own, 'mapping')) return own;
    const { mapping: _, ...rest } = own;
    return rest;
  });
}
