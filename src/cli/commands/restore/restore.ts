import { statSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import type { ImageFormat } from '../../../block/index.js';
import type { RestoreReport, RestoreTarget } from '../../../repository/index.js';
import {
  addOutputFlags,
  checkConfigurationFile,
  parseBytes,
  parseCount,
  storeConfiguration,
} from '../../device/index.js';
import { collect, noteWarnings, printable, type Shell, setFormatFlag } from '../../shell/index.js';
import { formatBytes, formatDuration } from '../../text/index.js';
import { showRepositoryJob } from '../../view/index.js';

interface RestoreFlags {
  disk?: string[];
  outputFormat?: ImageFormat;
  configuration?: string;
  rate?: number;
  threads?: number;
  json?: boolean;
}

const EXAMPLES = `
Examples:
  lacuna restore /backup latest web.qcow2
  lacuna restore /backup web/7 restored/
  lacuna restore --disk vda /backup db/2026-11-30T02:00 /dev/vg0/root
  lacuna restore --configuration web.xml /backup web/7 restored/
  lacuna restore -O qcow2 /backup 7 nbd://host/vda

A point is a number, "latest", or a time: the newest point that is not younger. With several machines it begins with
the name of one. A folder as the target gets all disks, or those of --disk, as NAME.raw or NAME.qcow2. Each block is
compared with its digest: the first that differs ends the command, and no file that is not whole gets its name.`;

/** Tells commander what `lacuna restore` takes, and what it does. */
export function registerRestore(command: Command, shell: Shell): void {
  command
    .description('Restores the disks of a restore point, and checks everything that is read.')
    .argument('<repository>', 'the repository')
    .argument('<point>', 'the restore point, such as latest or web/7')
    .argument('<target>', 'a folder, or where its disk goes')
    .option('--disk <name>', 'only this disk; may be repeated', collect)
    .option(
      '-O, --output-format <format>',
      'format of the target, raw or qcow2 (default: from its name, raw in a folder)',
    )
    .option(
      '--configuration <file>',
      'make this file of what the restore point keeps of the machine',
    )
    .option('--rate <size>', 'bytes per second that are written at most', parseBytes)
    .option('--threads <n>', 'worker threads; 0 does without', parseCount(0))
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action((path: string, point: string, target: string, flags: RestoreFlags) => {
      setFormatFlag(shell, '-O', target, path);
      return restoreCommand({ path, point, target }, flags, shell);
    });
  addOutputFlags(command, shell);
}

async function restoreCommand(
  { path, point, target }: { path: string; point: string; target: string },
  flags: RestoreFlags,
  shell: Shell,
): Promise<void> {
  const { Repository } = await import('../../../repository/index.js');
  const repository = Repository.open(path);
  const found = repository.find(point);
  const names = flags.disk ?? found.disks.map(({ name }) => name);
  const { machine, number, configuration } = found;
  if (flags.configuration !== undefined) {
    checkConfigurationFile(flags.configuration, configuration);
  }
  const job = repository.restore({
    machine,
    point: number,
    disks: targetsOf(names, target, flags.outputFormat),
    ...(flags.threads !== undefined && { threads: flags.threads }),
    rate: flags.rate,
  });
  const report = await showRepositoryJob(job, shell);
  if (flags.configuration !== undefined) {
    await storeConfiguration(flags.configuration, configuration);
  }
  noteWarnings(report.warnings, shell);
  await shell.print(flags.json ? `${JSON.stringify(report)}\n` : describeReport(report));
}

function targetsOf(
  names: readonly string[],
  target: string,
  format: ImageFormat | undefined,
): RestoreTarget[] {
  const isFolder =
    target.endsWith('/') || statSync(target, { throwIfNoEntry: false })?.isDirectory();
  if (isFolder) {
    const ending = format ?? 'raw';
    return names.map((name) => ({ name, target: join(target, `${name}.${ending}`), format }));
  }
  if (names.length === 1) return [{ name: names[0], target, format }];
  throw new TypeError(
    `${names.length} disks go into a folder: name one that is there, or choose a disk (--disk ${names[0]})`,
  );
}

function describeReport({ point, disks, durationMs }: RestoreReport): string {
  const lines = disks.map(
    ({ name, size, movedBytes }) =>
      `${printable(name)}: ${formatBytes(size)}, of which ${formatBytes(movedBytes)} are data.\n`,
  );
  return `${lines.join('')}Restored ${point.machine}/${point.number} of ${point.time} in ${formatDuration(durationMs)}.\n`;
}
