import type { Command } from 'commander';
import { parseBytes } from '../../device/index.js';
import {
  FORMAT_FLAG,
  IMAGE_FORMAT_TEXT,
  SHARE_FLAG,
  SHARE_TEXT,
  type Shell,
} from '../../shell/index.js';
import { addBitmap, type ChangeFlags, changeBitmaps, mergeBitmaps } from './bitmap-changes.js';
import { dumpBitmap, exportToImage, listBitmaps, type ViewFlags } from './bitmap-views.js';

const EXAMPLES = `
Examples:
  lacuna bitmap add disk.qcow2 b0
  lacuna bitmap list disk.qcow2
  lacuna bitmap merge -b overlay.qcow2 disk.qcow2 b0 b1 b2
  lacuna bitmap dump --json disk.qcow2 b0
  lacuna bitmap export disk.qcow2 b0 bits.qcow2
  lacuna bitmap list disk.bitmaps

"list", "dump" and "export" also take a file of bitmaps, as populate makes it: NAME.bitmaps, or any name with
-f bitmaps.

The disk must not be in use. A bitmap of a running machine is changed through its QMP; with "export" bits get
there: QEMU opens that image as a node, and block-dirty-bitmap-merge takes the bitmap from it.`;

const SUBCOMMAND_EXAMPLES = {
  list: 'list disk.qcow2\nlist --json disk.qcow2',
  add: 'add disk.qcow2 b0\nadd -g 1M --disabled disk.qcow2 b1',
  remove: 'remove disk.qcow2 b0 b1',
  clear: 'clear disk.qcow2 b0',
  enable: 'enable disk.qcow2 b0 b1',
  disable: 'disable disk.qcow2 b0',
  merge: 'merge disk.qcow2 b0 b1 b2\nmerge -b overlay.qcow2 disk.qcow2 b0 b1',
  dump: 'dump disk.qcow2 b0\ndump --json disk.qcow2 b0',
  export: 'export disk.qcow2 b0 bits.qcow2\nexport --as merged disk.qcow2 b0 bits.qcow2',
} as const;

/** Tells commander what `lacuna bitmap` takes, and what it does. */
export function registerBitmap(group: Command, shell: Shell): void {
  group
    .description('Looks at and changes the dirty bitmaps that a qcow2 image at rest keeps.')
    .addHelpText('after', EXAMPLES);
  const command = (usage: string, text: string) => {
    const made = group.command(usage).description(text).option(FORMAT_FLAG, IMAGE_FORMAT_TEXT);
    const examples = SUBCOMMAND_EXAMPLES[made.name() as keyof typeof SUBCOMMAND_EXAMPLES];
    return made.addHelpText('after', `\nExamples:\n${examples.replace(/^/gm, '  lacuna bitmap ')}`);
  };

  command('list <image>', 'Shows all bitmaps, and how much is dirty in each.')
    .option(SHARE_FLAG, SHARE_TEXT)
    .option('--json', 'print a JSON array')
    .action((image: string, flags: ViewFlags) => listBitmaps(image, flags, shell));
  command('add <image> <bitmap>', 'Adds a bitmap, which records from when the disk is used next.')
    .option(
      '-g, --granularity <size>',
      'bytes that one bit stands for (default: a cluster, but 4K to 64K)',
      parseBytes,
    )
    .option('--disabled', 'do not record')
    .action((image: string, name: string, flags: ChangeFlags) =>
      addBitmap(image, name, flags, shell),
    );
  for (const action of ['remove', 'clear', 'enable', 'disable'] as const) {
    command(`${action} <image> <bitmaps...>`, DEEDS[action]).action(
      (image: string, names: string[], flags: ChangeFlags) =>
        changeBitmaps(image, { action, names }, flags, shell),
    );
  }
  command('merge <image> <target> <sources...>', 'Adds to a bitmap what is dirty in others.')
    .option('-b, --source-file <image>', 'the image that has the sources (default: the same)')
    .option('-F, --source-format <format>', 'its format')
    .action((image: string, target: string, sources: string[], flags: ChangeFlags) =>
      mergeBitmaps(image, { target, sources }, flags, shell),
    );
  command('dump <image> <bitmap>', 'Prints the dirty ranges of a bitmap: offset and length.')
    .option(SHARE_FLAG, SHARE_TEXT)
    .option('--json', 'print one JSON document, with the digest of the bits')
    .action((image: string, name: string, flags: ViewFlags) =>
      dumpBitmap(image, name, flags, shell),
    );
  command('export <image> <bitmap> <target>', 'Writes a bitmap into a new image without data.')
    .option(SHARE_FLAG, SHARE_TEXT)
    .option('--as <name>', 'what the bitmap is called there (default: the same)')
    .action((image: string, name: string, target: string, flags: ViewFlags) =>
      exportToImage(image, { name, target }, flags, shell),
    );
}

const DEEDS = {
  remove: 'Removes bitmaps.',
  clear: 'Makes everything clean in bitmaps.',
  enable: 'Lets bitmaps record from when the disk is used next.',
  disable: 'Stops bitmaps from recording.',
} as const;
