import type { Command } from 'commander';
import type { MachineList, Manifest, Repository } from '../../../repository/index.js';
import { Exit, noteWarnings, type Shell } from '../../shell/index.js';
import { columns, formatBytes, formatDuration } from '../../text/index.js';

interface ListFlags {
  machine?: string;
  json?: boolean;
}

const EXAMPLES = `
Examples:
  lacuna list /backup
  lacuna list --machine web --json /backup

"stored" is what the files of a point take, "moved" what its backup stored as data, and "over" the point below.
With a damaged manifest the exit code is 3: "lacuna verify" tells more.`;

/** Tells commander what `lacuna list` takes, and what it does. */
export function registerList(command: Command, shell: Shell): void {
  command
    .description('Lists the restore points of a repository.')
    .argument('<repository>', 'the repository')
    .option('--machine <name>', 'only this machine')
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action((path: string, flags: ListFlags) => listCommand(path, flags, shell));
}

async function listCommand(path: string, flags: ListFlags, shell: Shell): Promise<void> {
  // As other tools list the exports of a server.
  if (/^nbds?(\+unix)?:/.test(path)) {
    throw new TypeError(
      `${path} is no repository but an export: "lacuna info" shows it, and "lacuna map" what it holds`,
    );
  }
  const { Repository } = await import('../../../repository/index.js');
  const repository = Repository.open(path);
  const machines = repository.points(flags.machine);
  const problems = machines.flatMap((machine) => machine.problems.map(({ message }) => message));
  noteWarnings(problems, shell);
  if (problems.length > 0) shell.exitCode = Exit.leftOut;
  await shell.print(flags.json ? jsonOf(repository, machines) : tableOf(repository, machines));
}

function jsonOf(repository: Repository, machines: readonly MachineList[]): string {
  const listed = machines.map(({ machine, points, problems }) => {
    const verified = repository.verified(machine);
    return {
      machine,
      points: points.map((point) => ({
        ...point,
        storedBytes: storedBytes(point),
        movedBytes: movedBytes(point),
        verified: verified[point.id] ?? null,
      })),
      problems: problems.map(({ message }) => message),
    };
  });
  return `${JSON.stringify({ repository: repository.path, id: repository.id, machines: listed })}\n`;
}

const HEAD = [
  'point',
  'time',
  'over',
  'disks',
  'size',
  'stored',
  'moved',
  'took',
  'verified',
  'tags',
];

function tableOf(repository: Repository, machines: readonly MachineList[]): string {
  const rows = machines.flatMap(({ machine, points }) => {
    const verified = repository.verified(machine);
    return points.map((point) => [
      `${machine}/${point.number}`,
      timeOf(point.time),
      overOf(point),
      `${point.disks.length}`,
      formatBytes(sum(point.disks.map(({ size }) => size))),
      formatBytes(storedBytes(point)),
      formatBytes(movedBytes(point)),
      formatDuration(point.durationMs),
      verified[point.id] === undefined ? '' : timeOf(verified[point.id]),
      point.tags.join(' '),
    ]);
  });
  return rows.length === 0 ? 'No restore points yet.\n' : columns(HEAD, rows);
}

/** In the time zone of this host. */
function timeOf(iso: string): string {
  const time = new Date(iso);
  const two = (value: number) => `${value}`.padStart(2, '0');
  const day = [time.getFullYear(), two(time.getMonth() + 1), two(time.getDate())].join('-');
  return `${day} ${two(time.getHours())}:${two(time.getMinutes())}`;
}

function overOf({ disks }: Manifest): string {
  const parents = new Set(disks.map(({ file }) => file.parent ?? '-'));
  return [...parents].join(' ');
}

function storedBytes({ disks }: Manifest): number {
  const images = disks.flatMap(({ file }) => [file, ...(file.below ?? [])]);
  return sum(images.map(({ size, leaves }) => size + leaves.size));
}

function movedBytes({ disks }: Manifest): number {
  return sum(disks.map((disk) => disk.movedBytes));
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
