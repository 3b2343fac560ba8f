import type { Command } from 'commander';
import {
  createQcow2,
  createRawFile,
  type ImageFormat,
  pathOfNamed,
  type RawPreallocation,
} from '../../../block/index.js';
import type { NewImageOptions } from '../../../copy/index.js';
import { makeFile } from '../../../files/index.js';
import { counted } from '../../../util/index.js';
import { FOLDER_FLAG, FOLDER_TEXT, parseBytes, parseImageOptions } from '../../device/index.js';
import { collect, FORMAT_FLAG, printable, type Shell } from '../../shell/index.js';
import { formatBytes } from '../../text/index.js';
import { sizeOfBacking } from './backing-size.js';
import { type NamedImage, nameImage } from './named-image.js';

interface CreateFlags {
  format?: ImageFormat;
  options?: string[];
  backing?: string;
  backingFormat?: string;
  backingFolder?: string[];
  unsafe?: boolean;
  exclusive?: boolean;
  quiet?: boolean;
  json?: boolean;
}

const EXAMPLES = `
Examples:
  lacuna create disk.raw 20G
  lacuna create disk.qcow2 20G
  lacuna create -f qcow2 -o cluster_size=1M,lazy_refcounts=on disk.img 2T
  lacuna create -b base.qcow2 -F qcow2 overlay.qcow2     # as large as the disk below it
  lacuna create -o preallocation=falloc disk.raw 20G

Options of -o have the names and values of qemu-img, and its defaults. A file that is there is replaced, unless
--exclusive is said or somebody uses it. The name of a backing file counts from the folder of the image.`;

/** Tells commander what `lacuna create` takes, and what it does. */
export function registerCreate(command: Command, shell: Shell): void {
  command
    .description('Makes a raw file or a qcow2 image that reads as zero, or as its backing file.')
    .argument('<image>', 'the file to make')
    .argument(
      '[size]',
      'bytes of the disk, such as 20G; not needed over a backing file',
      parseBytes,
    )
    .option(FORMAT_FLAG, 'format of the new image, raw or qcow2 (default: from its name)')
    .option(
      '-o, --options <list>',
      'how it is made, as qemu-img has it: cluster_size=1M,preallocation=metadata,...',
      collect,
    )
    .option('-b, --backing <file>', 'make a qcow2 image over this one')
    .option('-F, --backing-format <format>', 'format of the backing file, which is never guessed')
    .option(FOLDER_FLAG, FOLDER_TEXT, collect)
    .option('-u, --unsafe', 'do not open the backing file, which need not exist; needs a size')
    .option('--exclusive', 'fail if the image, or its data file, exists')
    .option('-q, --quiet', 'print nothing of what was made')
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action((image: string, size: number | undefined, flags: CreateFlags) =>
      createCommand(image, size, flags, shell),
    );
}

async function createCommand(
  name: string,
  given: number | undefined,
  flags: CreateFlags,
  shell: Shell,
): Promise<void> {
  const { backing: file, backingFormat: format, exclusive = false, quiet, json } = flags;
  const image = nameImage(name, flags.format);
  const { image: options = {}, preallocation } = parseImageOptions(flags.options ?? [], {
    file,
    format,
  });
  if (image.format === 'raw') refuseForRaw(options);
  const size = await sizeOf(image.path, options, { given, ...flags }, shell);
  const { signal } = shell;
  const make = (inode: string | undefined) => {
    if (image.format === 'qcow2') {
      // The image has been made exclusively; its data file is made there.
      const how = { inode, exclusive, size, preallocation, signal };
      return createQcow2(image.path, { ...options, ...how });
    }
    // What is not for raw files is refused there.
    const space = preallocation as RawPreallocation;
    return createRawFile(image.path, size, { inode, preallocation: space, signal });
  };
  await makeFile(image.path, { exclusive, also: dataFileOf(image.path, options) }, make);
  if (quiet) return;
  const document = { filename: name, format: image.format, size };
  await shell.print(json ? `${JSON.stringify(document)}\n` : describe(name, image, size, options));
}

/** A backing file is looked at in any case, unless that is unsafe; a size that is not said is that of its disk. */
async function sizeOf(
  image: string,
  { backing }: NewImageOptions,
  { given, backingFolder: folders, unsafe }: CreateFlags & { given: number | undefined },
  { signal }: Shell,
): Promise<number> {
  if (unsafe && backing === undefined)
    throw new TypeError('--unsafe is for a backing file: name it');
  const isLookedAt = backing !== undefined && !unsafe;
  const below = isLookedAt ? await sizeOfBacking(image, backing, { folders, signal }) : undefined;
  const size = given ?? below;
  if (size !== undefined) return size;
  throw new TypeError('say the size of the disk, such as 20G, behind the name of the image');
}

/** @throws TypeError for what only qcow2 images have. */
function refuseForRaw({ backing, ...options }: NewImageOptions): void {
  if (backing !== undefined) throw new TypeError('a raw file has no backing file: say -f qcow2');
  if (Object.keys(options).length === 0) return;
  throw new TypeError(
    'of the options of -o a raw file has only preallocation: leave out the others, or say -f qcow2',
  );
}

function dataFileOf(image: string, { dataFile }: NewImageOptions): string[] {
  return dataFile === undefined ? [] : [pathOfNamed(dataFile, image)];
}

function describe(
  name: string,
  { format }: NamedImage,
  size: number,
  { backing }: NewImageOptions,
): string {
  const over = backing === undefined ? '' : ` over ${printable(backing.filename)}`;
  return `Made ${printable(name)}: ${format}, ${formatBytes(size)} (${counted(size, 'byte')})${over}.\n`;
}
