import type { Command } from 'commander';
import type { DiffReport, DiskDiff } from '../../../repository/index.js';
import { counted } from '../../../util/index.js';
import { printable, type Shell } from '../../shell/index.js';
import { columns, formatBytes } from '../../text/index.js';

interface DiffFlags {
  map?: boolean;
  json?: boolean;
}

const EXAMPLES = `
Examples:
  lacuna diff /backup 6 7
  lacuna diff --map /backup web/6 web/latest

Points are told apart by their digests, in blocks of 64 KiB; nothing of the disks is read.`;

/** Tells commander what `lacuna diff` takes, and what it does. */
export function registerDiff(command: Command, shell: Shell): void {
  command
    .description(
      'Tells what changed between two restore points of a machine, in bytes or as a map.',
    )
    .argument('<repository>', 'the repository')
    .argument('<point>', 'the earlier restore point')
    .argument('<other>', 'the later one')
    .option('--map', 'list every range that differs')
    .option('--json', 'print one JSON document, with all ranges')
    .addHelpText('after', EXAMPLES)
    .action((path: string, from: string, to: string, flags: DiffFlags) =>
      diffCommand({ path, from, to }, flags, shell),
    );
}

async function diffCommand(
  { path, from, to }: { path: string; from: string; to: string },
  flags: DiffFlags,
  shell: Shell,
): Promise<void> {
  const { Repository } = await import('../../../repository/index.js');
  const report = await Repository.open(path).diff({ from, to, signal: shell.signal });
  if (flags.json) return await shell.print(`${JSON.stringify(report)}\n`);
  await shell.print(flags.map ? mapOf(report) : textOf(report));
}

function textOf({ machine, from, to, disks }: DiffReport): string {
  const lines = disks.map((disk) => `${printable(disk.name)}: ${describe(disk)}\n`);
  return `${machine}/${from} to ${machine}/${to}:\n${lines.join('')}`;
}

function describe({ fromSize, toSize, changedBytes, zeroBytes, ranges }: DiskDiff): string {
  if (fromSize === null) return 'a new disk';
  if (toSize === null) return 'not there any more';
  const size =
    fromSize === toSize ? '' : ` It had ${formatBytes(fromSize)}, and has ${formatBytes(toSize)}.`;
  if (changedBytes === 0) return `nothing changed.${size}`;
  const zero = zeroBytes > 0 ? `, of which ${formatBytes(zeroBytes)} are zero now` : '';
  return `${formatBytes(changedBytes)} changed in ${counted(ranges.length, 'place')}${zero}.${size}`;
}

function mapOf({ disks }: DiffReport): string {
  const rows = disks.flatMap(({ name, ranges }) =>
    ranges.map(({ offset, length, isZero }) => [
      printable(name),
      `${offset}`,
      `${length}`,
      isZero ? 'zero' : 'data',
    ]),
  );
  return rows.length === 0 ? '' : columns(['disk', 'offset', 'length', 'now'], rows);
}
