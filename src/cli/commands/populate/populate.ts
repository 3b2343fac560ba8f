import { type Command, Option } from 'commander';
import { Bitmap, BitmapFile, DirtyBitmaps } from '../../../bitmap/index.js';
import { filesIn, refuseShared } from '../../../copy/ends/index.js';
import { populate } from '../../../copy/index.js';
import { LacunaError } from '../../../errors/index.js';
import {
  addOutputFlags,
  addSourceFlags,
  openSource,
  parseBytes,
  type SourceFlags,
  withFolders,
} from '../../device/index.js';
import { noteWarnings, printable, type Shell } from '../../shell/index.js';
import { formatBytes, formatShare } from '../../text/index.js';
import { showReading } from '../../view/index.js';
import {
  addMachineFlags,
  type MachineFlags,
  type PopulateFlags,
  refuseMachineFlags,
} from './flags.js';
import { populateLive } from './populate-live.js';

const EXAMPLES = `
Examples:
  lacuna populate disk.raw --output disk.bitmaps
  lacuna populate -g 1M --mode top nbd://host/top nbd://host/middle --output chain.bitmaps --name since-monday
  lacuna populate --qmp /run/vm.qmp vda --name backup0
  lacuna populate --qmp /run/vm.qmp --mode top node:over --into node:over:b0 --merge node:base:b0

A bitmap of that name which is in the file already stays as it is and gets more dirt; others are kept.
"lacuna bitmap list" and "dump" show them, "copy --bitmap NAME=FILE" copies what one marks, "serve --bitmap" serves it.

With --qmp the sources are disks of a running machine, or its nodes as node:NAME, and the bitmap is one of the
machine. It gets what is allocated and what the guest writes meanwhile, and records from then on; it has its name only
once it is whole.`;

/** Tells commander what `lacuna populate` takes, and what it does. */
export function registerPopulate(command: Command, shell: Shell): void {
  command
    .description(
      'Marks in a dirty bitmap what is allocated in any of the sources, which must have one size.',
    )
    .argument('<source...>', 'the devices to ask; with --qmp disks or nodes of the machine');
  addSourceFlags(command)
    .option('-o, --output <file>', 'the file of bitmaps; made where it is not there')
    .option('--name <name>', 'name of the bitmap', 'allocated')
    .option('-g, --granularity <size>', 'of a new bitmap, such as 64K (the default)', parseBytes)
    .addOption(
      new Option(
        '--mode <mode>',
        'all that does not read as zero (full), or all that the top layer of each source holds (top)',
      ).choices(['full', 'top']),
    )
    .option('--json', 'print what came out as JSON');
  addMachineFlags(command)
    .addHelpText('after', EXAMPLES)
    .action((sources: string[], flags: PopulateFlags & MachineFlags) => {
      return flags.qmp === undefined
        ? populateCommand(sources, flags, shell)
        : populateLive(sources, flags, shell);
    });
  addOutputFlags(command, shell);
}

async function populateCommand(
  names: string[],
  flags: PopulateFlags & MachineFlags,
  shell: Shell,
): Promise<void> {
  refuseMachineFlags(flags);
  const { name, format, forceShare, mode, output } = flags;
  if (output === undefined) {
    throw new TypeError(
      'say where the bitmap is kept: --output FILE, or --qmp SOCKET of a machine',
    );
  }
  const { signal } = shell;
  const sources = names.map((source) => withFolders(source, format, flags.backingFolder));
  const size = await sizeOf(names[0], flags, signal);
  for (const source of sources) refuseShared('--output', output, filesIn(source, format));
  const file = BitmapFile.open(output, { size });
  try {
    const bitmaps = new DirtyBitmaps({ size });
    file.restore(bitmaps);
    // The file is replaced as a whole, or stays as it was: a failure must not leave its bitmaps marked as in use.
    bitmaps.store = null;
    const { granularity = 64 * 1024 } = bitmaps.has(name) ? bitmaps.get(name) : flags;
    if (granularity !== (flags.granularity ?? granularity))
      throw otherGranularity(granularity, name, output);
    const found = new Bitmap({ size, granularity });
    const how = { sourceFormat: format, forceShare, mode, signal };
    const job = populate({ ...how, sources, targets: [found] });
    const warnings = await showReading(job, 'Looking', shell);
    if (!bitmaps.has(name)) bitmaps.add({ name, granularity, persistent: true, disabled: true });
    bitmaps.merge(name, [found]);
    const { dirtyBytes } = bitmaps.get(name);
    file.close(bitmaps);
    warnings.push(...file.warnings);
    await print({ name, size, granularity, dirtyBytes, warnings }, output, flags.json, shell);
  } finally {
    // What was not stored is not in the file.
    file.close();
  }
}

interface Populated {
  name: string;
  size: number;
  granularity: number;
  dirtyBytes: number;
  warnings: string[];
}

async function print(
  done: Populated,
  output: string,
  json: boolean | undefined,
  shell: Shell,
): Promise<void> {
  const { name, size, dirtyBytes, warnings } = done;
  const share = `${formatBytes(dirtyBytes)} of ${formatBytes(size)} (${formatShare(dirtyBytes, size)})`;
  if (json) await shell.print(`${JSON.stringify(done)}\n`);
  else await shell.print(`${share} are dirty in "${printable(name)}" of ${printable(output)}.\n`);
  noteWarnings(warnings, shell);
}

function otherGranularity(bytes: number, name: string, output: string): LacunaError {
  const message = `"${name}" of ${output} has a granularity of ${formatBytes(bytes)} already: leave out -g, or say another --name`;
  return new LacunaError('ERR_BITMAP_MISMATCH', message, { device: output });
}

async function sizeOf(source: string, flags: SourceFlags, signal: AbortSignal): Promise<number> {
  await using device = await openSource(source, flags, { signal });
  return device.size;
}
