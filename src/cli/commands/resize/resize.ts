import { type Command, InvalidArgumentError, Option } from 'commander';
import {
  type ImageFormat,
  type Preallocation,
  type ResizeReport,
  resizeImage,
} from '../../../block/index.js';
import { counted } from '../../../util/index.js';
import { parseBytes } from '../../device/index.js';
import { FORMAT_FLAG, printable, type Shell } from '../../shell/index.js';
import { formatBytes } from '../../text/index.js';

interface ResizeFlags {
  format?: ImageFormat;
  shrink?: boolean;
  preallocation?: Preallocation;
  quiet?: boolean;
  json?: boolean;
}

const EXAMPLES = `
Examples:
  lacuna resize disk.qcow2 40G
  lacuna resize disk.raw +10G
  lacuna resize --shrink disk.qcow2 -5G                   # what lies behind the new end is lost
  lacuna resize --preallocation falloc disk.raw +10G

What is added reads as zero. The bitmaps of an image get its new size, and what is added is clean in them; its internal
snapshots keep their own. The partitions and file systems on the disk are the guest's business: make them smaller
before the disk, and larger after it. Without --shrink the command says what would be lost, and changes nothing.`;

/** Tells commander what `lacuna resize` takes, and what it does. */
export function registerResize(command: Command, shell: Shell): void {
  takeNegativeSizes(command);
  command
    .description('Makes the disk of a raw file or a qcow2 image larger or smaller.')
    .argument('<image>', 'the file to resize')
    .argument('<size>', 'bytes of the disk, such as 20G, or a change of it: +5G, -5G', parseChange)
    .option(FORMAT_FLAG, 'format of the file, raw or qcow2 (default: from its name)')
    .option('--shrink', 'allow the disk to become smaller, and lose what lies behind its new end')
    .addOption(
      new Option(
        '--preallocation <mode>',
        'lay out what is added at once: map it (metadata), reserve its space (falloc), or write zeroes (full)',
      ).choices(['off', 'metadata', 'falloc', 'full']),
    )
    .option('-q, --quiet', 'print nothing of what was done')
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action((image: string, size: number | { by: number }, flags: ResizeFlags) =>
      resizeCommand(image, size, flags, shell),
    );
}

/** A size that is taken away looks like an option, and is an argument all the same. */
function takeNegativeSizes(command: Command): void {
  const parse = command.parseOptions.bind(command);
  command.parseOptions = (argv) => {
    const { operands, unknown } = parse(argv);
    const isOption = (word: string) => word.startsWith('-') && !/^-\d/.test(word);
    return {
      operands: [...operands, ...unknown.filter((word) => !isOption(word))],
      unknown: unknown.filter(isOption),
    };
  };
}

function parseChange(text: string): number | { by: number } {
  const sign = /^[+-]/.exec(text)?.[0];
  if (sign === undefined) return parseBytes(text);
  const by = parseBytes(text.slice(1));
  if (by === 0) throw new InvalidArgumentError('Say by how much, such as +5G or -5G.');
  return { by: sign === '+' ? by : -by };
}

async function resizeCommand(
  name: string,
  size: number | { by: number },
  { format, shrink, preallocation, quiet, json }: ResizeFlags,
  shell: Shell,
): Promise<void> {
  const { signal } = shell;
  const report = await resizeImage(name, size, { format, shrink, preallocation, signal });
  if (json) await shell.print(`${JSON.stringify({ filename: name, ...report })}\n`);
  else if (!quiet) await shell.print(describe(name, report));
}

function describe(name: string, { before, size, lostData }: ResizeReport): string {
  if (size === before) return `${printable(name)} has ${counted(size, 'byte')} already.\n`;
  const now = `${formatBytes(before)} to ${formatBytes(size)} (${counted(size, 'byte')})`;
  const lost = lostData === 0 ? '' : `, and lost ${formatBytes(lostData)} of data behind its end`;
  return `Resized ${printable(name)} from ${now}${lost}.\n`;
}
