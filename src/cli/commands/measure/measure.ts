import { type Command, Option } from 'commander';
import {
  type BlockDevice,
  checkNewImage,
  type ImageFormat,
  imageOf,
  openBitmaps,
  type Preallocation,
  parseDescription,
} from '../../../block/index.js';
import { Context, readsAsZero } from '../../../extent/index.js';
import {
  allocatedBytes,
  bitmapsBytes,
  geometryOf,
  Incompatible,
  l1EntriesFor,
  MAX_L1_BYTES,
  type MeasuredBitmap,
  type MeasuredImage,
  wholeClusters,
} from '../../../qcow2/index.js';
import { counted } from '../../../util/index.js';
import {
  addSourceFlags,
  openSource,
  type ParsedImageOptions,
  parseBytes,
  parseImageOptions,
  type SourceFlags,
  walkExtents,
} from '../../device/index.js';
import { collect, noteWarnings, type Shell } from '../../shell/index.js';
import { formatBytes } from '../../text/index.js';

interface MeasureFlags extends SourceFlags {
  outputFormat: ImageFormat;
  options?: string[];
  size?: number;
  json?: boolean;
}

/** What `lacuna measure --json` prints, as qemu-img does. Bytes. */
interface Measured {
  /** What the new file takes with what the source holds now. */
  required: number;
  /** What it takes when all of the disk is allocated. */
  'fully-allocated': number;
  /** What the bitmaps of the source take in it, beside that; absent where it can have none. */
  bitmaps?: number;
}

const EXAMPLES = `
Examples:
  lacuna measure -O qcow2 disk.raw
  lacuna measure -O qcow2 -o cluster_size=1M --size 2T
  lacuna measure --json -O qcow2 nbd://host/vda | jq .required

The numbers are those of qemu-img measure: no copy takes more, and one that compresses takes less.`;

/** Tells commander what `lacuna measure` takes, and what it does. */
export function registerMeasure(command: Command, shell: Shell): void {
  command
    .description('Tells how many bytes a new raw file or qcow2 image takes, before it is made.')
    .argument('[source]', 'the device that would be copied');
  addSourceFlags(command)
    .addOption(
      new Option('-O, --output-format <format>', 'format of the new file: raw or qcow2')
        .choices(['raw', 'qcow2'])
        .default('raw'),
    )
    .option('-o, --options <list>', 'how it would be made, as qemu-img has it', collect)
    .option('--size <size>', 'bytes of an empty disk, in place of a source', parseBytes)
    .option('--json', 'print one JSON document, with the names of qemu-img')
    .addHelpText('after', EXAMPLES)
    .action((source: string | undefined, flags: MeasureFlags) =>
      measureCommand(source, flags, shell),
    );
}

async function measureCommand(
  source: string | undefined,
  flags: MeasureFlags,
  shell: Shell,
): Promise<void> {
  const options = parseImageOptions(flags.options ?? [], {});
  if (flags.outputFormat === 'raw' && options.image !== undefined) {
    throw new TypeError('of the options of -o a raw file has only preallocation: say -O qcow2');
  }
  if ((source === undefined) === (flags.size === undefined)) {
    throw new TypeError('name a source, or say --size, and not both');
  }
  const measured =
    source === undefined
      ? measure(flags.size!, 0, flags.outputFormat, options)
      : await measureSource(source, { options, flags, shell });
  await shell.print(flags.json ? `${JSON.stringify(measured)}\n` : describe(measured));
}

interface SourceWork {
  readonly options: ParsedImageOptions;
  readonly flags: MeasureFlags;
  readonly shell: Shell;
}

async function measureSource(
  source: string,
  { options, flags, shell }: SourceWork,
): Promise<Measured> {
  const device = await openSource(source, flags, { signal: shell.signal });
  try {
    noteWarnings(device.warnings, shell);
    const { outputFormat } = flags;
    const { clusterSize } = imageLike(device.size, options).geometry;
    const isQcow2 = outputFormat === 'qcow2';
    // How much of a backing file is shared is not known, so the worst is told.
    const isOver = options.image?.backing !== undefined;
    const data = isQcow2 && !isOver ? await dataClusters(device, clusterSize, shell) : 0;
    const measured = measure(device.size, data * clusterSize, outputFormat, options);
    const isAll = isOver && isQcow2;
    const required = isAll ? measured['fully-allocated'] : measured.required;
    const bitmaps = isQcow2
      ? await bitmapsOf(source, device, { options, flags, shell })
      : undefined;
    return { ...measured, required, ...(bitmaps !== undefined && { bitmaps }) };
  } finally {
    await device.close();
  }
}

/** Clusters that hold anything that does not read as zero. */
async function dataClusters(
  device: BlockDevice,
  clusterSize: number,
  { signal }: Shell,
): Promise<number> {
  const { size } = device;
  if (!device.capabilities.contexts.includes(Context.allocation)) {
    return Math.ceil(size / clusterSize);
  }
  let clusters = 0;
  let next = 0;
  for await (const ranges of walkExtents(device, { contexts: [Context.allocation], signal })) {
    for (const { offset, length, flags } of ranges) {
      if (readsAsZero(flags[0])) continue;
      const first = Math.max(next, Math.floor(offset / clusterSize));
      next = Math.max(next, Math.ceil((offset + length) / clusterSize));
      clusters += next - first;
    }
  }
  return clusters;
}

/** Bytes of the bitmaps that an image keeps; undefined where no image is the source, or none is made that can keep any. */
async function bitmapsOf(
  source: string,
  device: BlockDevice,
  { options, flags, shell }: SourceWork,
): Promise<number | undefined> {
  const { format, forceShare } = flags;
  if (imageOf(parseDescription(source, { format })) === undefined) return undefined;
  if (options.image?.version === 2 || device.details?.version === 2) return undefined;
  await using image = await openBitmaps(source, { format, forceShare, signal: shell.signal });
  const kept: MeasuredBitmap[] = image.bitmaps
    .list()
    .map(({ name, granularity }) => ({ name, granularityBits: Math.log2(granularity) }));
  return bitmapsBytes(imageLike(device.size, options), kept);
}

function measure(
  size: number,
  data: number,
  format: ImageFormat,
  options: ParsedImageOptions,
): Measured {
  if (format === 'raw') {
    const bytes = Math.ceil(size / 512) * 512;
    return { required: bytes, 'fully-allocated': bytes };
  }
  const image = imageLike(size, options);
  const all = allocatedBytes(image);
  const isTaken = options.preallocation === 'falloc' || options.preallocation === 'full';
  const required = isTaken ? all : all - wholeClusters(image) + data;
  return { required, 'fully-allocated': all };
}

/** The image that the options would make. */
function imageLike(size: number, { image, preallocation }: ParsedImageOptions): MeasuredImage {
  const space = preallocation as Preallocation | undefined;
  const made = checkNewImage({ ...image, size, preallocation: space });
  const { clusterSize, refcountBits, extendedL2 } = made;
  const geometry = geometryOf({
    clusterBits: Math.log2(clusterSize),
    refcountOrder: Math.log2(refcountBits),
    incompatible: extendedL2 ? Incompatible.extendedL2 : 0n,
  });
  if (l1EntriesFor(size, geometry) * 8 > MAX_L1_BYTES) {
    throw new RangeError(`a disk of ${size} bytes is too large for clusters of ${clusterSize}`);
  }
  return { size: made.size, geometry };
}

function describe(measured: Measured): string {
  const line = (label: string, bytes: number) =>
    `${label} ${formatBytes(bytes)} (${counted(bytes, 'byte')})\n`;
  const { required, bitmaps } = measured;
  return [
    line('required       ', required),
    line('fully allocated', measured['fully-allocated']),
    ...(bitmaps === undefined ? [] : [line('bitmaps        ', bitmaps)]),
  ].join('');
}
