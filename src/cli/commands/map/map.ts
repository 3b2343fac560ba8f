import type { Command } from 'commander';
import type { BlockDevice, Range } from '../../../block/index.js';
import { Context } from '../../../extent/index.js';
import { counted } from '../../../util/index.js';
import {
  addRangeFlags,
  addRescueFlag,
  addSourceFlags,
  type ContextKinds,
  kindsOf,
  noteMissing,
  openSource,
  parseCount,
  rangeIn,
  type SourceFlags,
  type StatusRange,
  walkExtents,
} from '../../device/index.js';
import { collect, noteWarnings, printable, type Shell } from '../../shell/index.js';
import { Cells } from '../../text/index.js';
import {
  extentJson,
  type PictureRow,
  renderPicture,
  tableHeading,
  tableLine,
} from '../../view/index.js';

interface MapFlags extends SourceFlags {
  context?: string[];
  json?: boolean;
  all?: boolean;
  picture?: boolean;
  width?: number;
}

/** Lines of the table on a terminal; what flows into a pipe is never cut. */
const TERMINAL_LINES = 20;

const EXAMPLES = `
Examples:
  lacuna map disk.raw
  lacuna map --offset 1G --length 64M disk.raw
  lacuna map --context qemu:allocation-depth disk.qcow2     # which file of a chain has what
  lacuna map --json disk.raw | jq '[.[] | select(.data)] | length'
  lacuna map --context qemu:dirty-bitmap:backup0 nbd+unix:///vda?socket=/run/nbd.sock

In JSON each extent has start and length in bytes, and by context
  base:allocation         data, zero, hole    (only "zero": true says that it reads as zero)
  qemu:dirty-bitmap:NAME  dirty
  qemu:allocation-depth   depth
With more than one context, these stand in "contexts", under the name of each.`;

/** Tells commander what `lacuna map` takes, and what it does. */
export function registerMap(command: Command, shell: Shell): void {
  command
    .description('Shows which parts of a device are data, zero, hole or dirty.')
    .argument('<source>', 'the device to look at');
  addRangeFlags(addRescueFlag(addSourceFlags(command)), 'tell')
    .option(
      '--context <name>',
      'metadata context (default: base:allocation); may be repeated',
      collect,
    )
    .option('--json', 'print an array of extents')
    .option('--all', 'print every extent, even on a terminal')
    .option('--picture', 'draw the device as one row of cells (default on a terminal)')
    .option('--no-picture', 'print the table only')
    .option('--width <cells>', 'cells of the picture (default: the terminal)', parseCount(1))
    .addHelpText('after', EXAMPLES)
    .action((source: string, flags: MapFlags) => mapCommand(source, flags, shell));
}

async function mapCommand(source: string, flags: MapFlags, shell: Shell): Promise<void> {
  const contexts = [...new Set(flags.context ?? [Context.allocation])];
  // Of a part, places are told as they are in the whole.
  const whole = { ...flags, offset: undefined, length: undefined };
  const device = await openSource(source, whole, { contexts, signal: shell.signal });
  try {
    noteWarnings(device.warnings, shell);
    noteMissing(device, shell);
    const kinds = contexts.map(kindsOf);
    const range = rangeIn(device, flags);
    await (flags.json ? printJson : printForPeople)({ device, range, kinds, flags, shell });
  } finally {
    await device.close();
  }
}

interface MapWork {
  device: BlockDevice;
  range: Range;
  kinds: readonly ContextKinds[];
  flags: MapFlags;
  shell: Shell;
}

/** Visits the device's extents in order, for as long as somebody reads what is printed. */
async function* extentsOf({ device, range, kinds, shell }: MapWork): AsyncGenerator<StatusRange[]> {
  const contexts = kinds.map(({ context }) => context);
  for await (const ranges of walkExtents(device, { contexts, range, signal: shell.signal })) {
    if (!shell.listening) return;
    yield ranges;
  }
}

async function printJson(work: MapWork): Promise<void> {
  let separator = '[';
  for await (const ranges of extentsOf(work)) {
    // In an array that is begun there is no room for another document.
    work.shell.failureDocument = undefined;
    const lines = ranges.map((range) => extentJson(range, work.kinds));
    await work.shell.print(`${separator}${lines.join(',\n')}`);
    separator = ',\n';
  }
  await work.shell.print(separator === '[' ? '[]\n' : ']\n');
}

async function printForPeople(work: MapWork): Promise<void> {
  const { range, kinds, flags, shell } = work;
  const drawn = flags.picture ?? shell.isTerminal;
  const listed = flags.all === true || flags.picture !== true;
  const rows = kinds.map((each) => newRow(each, range.length, flags.width ?? shell.width));
  const table = new Table(kinds, flags.all || !shell.isTerminal ? Infinity : TERMINAL_LINES);
  for await (const ranges of extentsOf(work)) {
    for (const { offset, length, flags } of ranges) {
      rows.forEach(({ cells, kinds }, i) => {
        cells.add(offset - range.offset, length, kinds.kindOf(flags[i]));
      });
    }
    table.add(ranges);
    // A table that is not preceded by a picture can be printed while it is being made.
    if (listed && !drawn) await shell.print(table.take());
  }
  if (drawn) await shell.paint(drawing(rows, shell));
  if (listed) await shell.print(`${drawn ? '\n' : ''}${table.take()}${table.rest()}`);
}

function newRow(kinds: ContextKinds, size: number, width: number): PictureRow {
  return { kinds, cells: new Cells({ size, count: width, kinds: kinds.names.length }) };
}

function drawing(rows: readonly PictureRow[], shell: Shell): string {
  const pictures = rows.map((row) => {
    const heading = rows.length > 1 ? [printable(row.kinds.context)] : [];
    return [...heading, ...renderPicture(row, shell), ''].join('\n');
  });
  return pictures.join('\n');
}

/** The lines of the table that have not been printed yet. */
class Table {
  readonly #kinds: readonly ContextKinds[];
  readonly #limit: number;
  #lines: string[] = [tableHeading()];
  #listed = 0;
  #hidden = 0;

  constructor(kinds: readonly ContextKinds[], limit: number) {
    this.#kinds = kinds;
    this.#limit = limit;
  }

  add(ranges: readonly StatusRange[]): void {
    const shown = ranges.slice(0, Math.max(0, this.#limit - this.#listed));
    for (const range of shown) this.#lines.push(tableLine(range, this.#kinds));
    this.#listed += shown.length;
    this.#hidden += ranges.length - shown.length;
  }

  take(): string {
    const lines = this.#lines;
    this.#lines = [];
    return lines.map((line) => `${line}\n`).join('');
  }

  /** Says how much the limit hid. */
  rest(): string {
    return this.#hidden === 0
      ? ''
      : `... and ${counted(this.#hidden, 'more extent')}; --all shows all.\n`;
  }
}
