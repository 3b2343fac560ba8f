import type { Command } from 'commander';
import { type AmendReport, amendQcow2, type ImageFormat } from '../../../block/index.js';
import {
  collect,
  FORMAT_FLAG,
  IMAGE_FORMAT_TEXT,
  printable,
  type Shell,
} from '../../shell/index.js';
import { parseAmendedOptions } from './amended-options.js';

interface AmendFlags {
  format?: ImageFormat;
  options?: string[];
  quiet?: boolean;
  json?: boolean;
}

const EXAMPLES = `
Options of -o, with the names and values of qemu-img:
  compat=1.1, compat=0.10     the version of the format, 3 or 2
  lazy_refcounts=on, off      whether writers may postpone refcounts
  backing_fmt=raw, qcow2      how the backing file is read from now on

Examples:
  lacuna amend -o compat=1.1 disk.qcow2
  lacuna amend -o compat=0.10 disk.qcow2
  lacuna amend -o lazy_refcounts=off disk.qcow2
  lacuna amend -o backing_fmt=raw overlay.qcow2

The disk stays the same, and so do bitmaps and snapshots. What version 2 has not, such as bitmaps, is not given up for
it: the image is refused. What cannot be changed in place takes a copy, and the command says how.`;

/** Tells commander what `lacuna amend` takes, and what it does. */
export function registerAmend(command: Command, shell: Shell): void {
  command
    .description('Changes how a qcow2 image keeps its disk, in place.')
    .argument('<image>', 'the image to change')
    .option(FORMAT_FLAG, IMAGE_FORMAT_TEXT)
    .option('-o, --options <list>', 'what is changed: compat=1.1,lazy_refcounts=on,...', collect)
    .option('-q, --quiet', 'print nothing of what was done')
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action((image: string, flags: AmendFlags) => amendCommand(image, flags, shell));
}

async function amendCommand(
  name: string,
  { format, options = [], quiet, json }: AmendFlags,
  shell: Shell,
): Promise<void> {
  const amended = parseAmendedOptions(options);
  if (Object.keys(amended).length === 0) {
    throw new TypeError('say with -o what is changed, such as -o compat=1.1');
  }
  const report = await amendQcow2(name, { ...amended, format, signal: shell.signal });
  if (json) await shell.print(`${JSON.stringify({ filename: name, ...report })}\n`);
  else if (!quiet) await shell.print(describe(name, report));
}

function describe(name: string, { version, lazyRefcounts, backingFormat }: AmendReport): string {
  const lazy = lazyRefcounts ? ', lazy refcounts' : '';
  const over = backingFormat === undefined ? '' : `, over a ${printable(backingFormat)} file`;
  return `Amended ${printable(name)}: qcow2 version ${version}${lazy}${over}.\n`;
}
