import type { Command } from 'commander';
import {
  type BitmapImage,
  type BitmapImageOptions,
  exportBitmap,
  openBitmaps,
} from '../block/index.js';
import { type BitmapFormat, type BitmapSource, openBitmapSource } from './bitmap-source.js';
import { FORMAT_FLAG, IMAGE_FORMAT_TEXT, SHARE_FLAG, SHARE_TEXT } from './flags.js';
import { warnOfName } from './named-format.js';
import type { Shell } from './shell.js';
import { formatBytes, parseBytes } from './units.js';

interface BitmapFlags {
  format?: BitmapFormat;
  forceShare?: boolean;
  granularity?: number;
  disabled?: boolean;
  sourceFile?: string;
  sourceFormat?: BitmapImageOptions['format'];
  as?: string;
  json?: boolean;
}

/** What `lacuna bitmap list --json` prints of each. */
export interface StoredBitmapInfo {
  name: string;
  /** Bytes. */
  granularity: number;
  recording: boolean;
  inconsistent: boolean;
  /** Bytes; absent where the bitmap is inconsistent. */
  dirtyBytes?: number;
}

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

/** Adds `lacuna bitmap`. */
export function registerBitmap(program: Command, shell: Shell): void {
  const group = program
    .command('bitmap')
    .summary('look at and change the bitmaps that an image keeps')
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
    .action((image: string, flags: BitmapFlags) => listCommand(image, flags, shell));
  command('add <image> <bitmap>', 'Adds a bitmap, which records from when the disk is used next.')
    .option(
      '-g, --granularity <size>',
      'bytes that one bit stands for (default: a cluster, but 4K to 64K)',
      parseBytes,
    )
    .option('--disabled', 'do not record')
    .action((image: string, name: string, flags: BitmapFlags) => {
      const { granularity, disabled } = flags;
      return change(image, flags, shell, async ({ bitmaps }) => {
        bitmaps.add({ name, granularity, disabled, persistent: true });
      });
    });
  for (const action of ['remove', 'clear', 'enable', 'disable'] as const) {
    command(`${action} <image> <bitmaps...>`, DEEDS[action]).action(
      (image: string, names: string[], flags: BitmapFlags) =>
        change(image, flags, shell, async ({ bitmaps }) => {
          bitmaps.transaction(names.map((name) => ({ type: action, name })));
        }),
    );
  }
  command('merge <image> <target> <sources...>', 'Adds to a bitmap what is dirty in others.')
    .option('-b, --source-file <image>', 'the image that has the sources (default: the same)')
    .option('-F, --source-format <format>', 'its format')
    .action((image: string, target: string, sources: string[], flags: BitmapFlags) =>
      change(image, flags, shell, (opened) => merge(opened, target, sources, flags, shell)),
    );
  command('dump <image> <bitmap>', 'Prints the dirty ranges of a bitmap: offset and length.')
    .option(SHARE_FLAG, SHARE_TEXT)
    .option('--json', 'print one JSON document, with the digest of the bits')
    .action((image: string, name: string, flags: BitmapFlags) =>
      dumpCommand(image, name, flags, shell),
    );
  command('export <image> <bitmap> <target>', 'Writes a bitmap into a new image without data.')
    .option(SHARE_FLAG, SHARE_TEXT)
    .option('--as <name>', 'what the bitmap is called there (default: the same)')
    .action((image: string, name: string, target: string, flags: BitmapFlags) =>
      exportCommand(image, name, target, flags, shell),
    );
}

const DEEDS = {
  remove: 'Removes bitmaps.',
  clear: 'Makes everything clean in bitmaps.',
  enable: 'Lets bitmaps record from when the disk is used next.',
  disable: 'Stops bitmaps from recording.',
} as const;

/** Changes the bitmaps of an image, all or none. */
async function change(
  source: string,
  { format }: BitmapFlags,
  { signal }: Shell,
  work: (image: BitmapImage) => Promise<void>,
): Promise<void> {
  if (format === 'bitmaps') throw new TypeError('a file of bitmaps can be looked at only');
  await using image = await openBitmaps(source, { format, writable: true, signal });
  await work(image);
  await image.store();
}

async function merge(
  image: BitmapImage,
  target: string,
  names: readonly string[],
  { sourceFile, sourceFormat }: BitmapFlags,
  { signal }: Shell,
): Promise<void> {
  await image.bitmaps.load(target);
  if (sourceFile === undefined) {
    for (const name of names) await image.bitmaps.load(name);
    image.bitmaps.merge(target, names);
    return;
  }
  await using other = await openBitmaps(sourceFile, { format: sourceFormat, signal });
  for (const name of names) await other.bitmaps.load(name);
  const { bitmaps } = other;
  image.bitmaps.merge(
    target,
    names.map((name) => ({ bitmaps, name })),
  );
}

async function listCommand(source: string, flags: BitmapFlags, shell: Shell): Promise<void> {
  await using image = await openToRead(source, flags, shell);
  const infos: StoredBitmapInfo[] = [];
  for (const { name, granularity, recording, inconsistent } of image.list()) {
    const info = { name, granularity, recording, inconsistent };
    infos.push(inconsistent ? info : { ...info, dirtyBytes: await dirtyBytesOf(image, name) });
  }
  await shell.print(flags.json ? `${JSON.stringify(infos, null, 2)}\n` : describeList(infos));
}

/** One at a time in memory: an image may keep thousands. */
async function dirtyBytesOf(image: BitmapSource, name: string): Promise<number> {
  const bits = await image.load(name);
  const { dirtyBytes } = bits;
  bits.free();
  return dirtyBytes;
}

function describeList(infos: readonly StoredBitmapInfo[]): string {
  if (infos.length === 0) return 'No bitmaps.\n';
  const rows = infos.map(({ name, granularity, recording, inconsistent, dirtyBytes = 0 }) => [
    name,
    formatBytes(granularity),
    inconsistent ? 'inconsistent' : recording ? 'recording' : 'disabled',
    inconsistent ? '-' : formatBytes(dirtyBytes),
  ]);
  const table = [['bitmap', 'granularity', 'state', 'dirty'], ...rows];
  const widths = [0, 1, 2].map((column) => Math.max(...table.map((row) => row[column].length)));
  return table
    .map((row) => `${row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('  ')}\n`)
    .join('');
}

async function dumpCommand(
  source: string,
  name: string,
  flags: BitmapFlags,
  shell: Shell,
): Promise<void> {
  await using image = await openToRead(source, flags, shell);
  using bits = await image.load(name);
  const { size, granularity, dirtyBytes } = bits;
  if (flags.json) {
    // In a document that is begun there is no room for another.
    shell.failureDocument = undefined;
    const head = { name, size, granularity, dirtyBytes, digest: bits.digest() };
    await shell.print(`${JSON.stringify(head).slice(0, -1)},"ranges":[`);
  }
  let separator = '';
  for (const { offset, length } of bits.ranges()) {
    if (!shell.listening) return;
    await shell.print(
      flags.json
        ? `${separator}${JSON.stringify({ start: offset, length })}`
        : `${offset} ${length}\n`,
    );
    separator = ',\n';
  }
  if (flags.json) await shell.print(']}\n');
}

async function exportCommand(
  source: string,
  name: string,
  target: string,
  flags: BitmapFlags,
  shell: Shell,
): Promise<void> {
  await using image = await openToRead(source, flags, shell);
  using bitmap = await image.load(name);
  await exportBitmap(target, { bitmap, name: flags.as ?? name, exclusive: true });
  warnOfName(target, 'qcow2', shell);
}

function openToRead(
  source: string,
  { format, forceShare }: BitmapFlags,
  { signal }: Shell,
): Promise<BitmapSource> {
  return openBitmapSource(source, { format, forceShare, signal });
}
