import type { Command } from 'commander';
import type { KeepRules, PrunedMachine, PruneReport } from '../../../repository/index.js';
import { addOutputFlags, parseCount } from '../../device/index.js';
import { collect, type Shell } from '../../shell/index.js';
import { formatBytes, formatDuration } from '../../text/index.js';
import { showRepositoryJob } from '../../view/index.js';

interface PruneFlags {
  machine?: string;
  keepLast?: number;
  keepHourly?: number;
  keepDaily?: number;
  keepWeekly?: number;
  keepMonthly?: number;
  keepYearly?: number;
  keepTag?: string[];
  dryRun?: boolean;
  threads?: number;
  json?: boolean;
}

const EXAMPLES = `
Examples:
  lacuna prune --keep-last 14 /backup
  lacuna prune --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --keep-tag release --dry-run /backup

A point stays if any rule keeps it, for each machine by itself; the rules mean what they mean to restic: where
there are fewer days (and so on) with a point than a rule asks for, the oldest point stays too. Rules that keep no
point of a machine are refused. Points that stay take over what they need of those that go, so that each can still
be restored. An image that is far larger than what would be merged into it is left for a later prune, when more has
changed (docs/repository.md). It may be killed at any moment: run it again. A machine whose points are read or served
meanwhile is refused.`;

/** Tells commander what `lacuna prune` takes, and what it does. */
export function registerPrune(command: Command, shell: Shell): void {
  const count = parseCount(0);
  command
    .description('Removes the restore points that no rule keeps, and frees their space.')
    .argument('<repository>', 'the repository')
    .option('--machine <name>', 'only this machine')
    .option('--keep-last <n>', 'keep the newest n points', count)
    .option(
      '--keep-hourly <n>',
      'keep the newest point of each of the last n hours that have one',
      count,
    )
    .option('--keep-daily <n>', 'the same for days', count)
    .option('--keep-weekly <n>', 'the same for weeks, which begin on Monday', count)
    .option('--keep-monthly <n>', 'the same for months', count)
    .option('--keep-yearly <n>', 'the same for years', count)
    .option('--keep-tag <text>', 'keep points with this tag; may be repeated', collect)
    .option('-n, --dry-run', 'tell what would be done, and do nothing')
    .option('--threads <n>', 'worker threads; 0 does without', count)
    .option('--json', 'print one JSON document')
    .addHelpText('after', EXAMPLES)
    .action((path: string, flags: PruneFlags) => pruneCommand(path, flags, shell));
  addOutputFlags(command, shell);
}

async function pruneCommand(path: string, flags: PruneFlags, shell: Shell): Promise<void> {
  const { machine, dryRun, threads, json } = flags;
  const { Repository } = await import('../../../repository/index.js');
  const job = Repository.open(path).prune({
    keep: rulesOf(flags),
    ...(machine !== undefined && { machine }),
    ...(dryRun && { dryRun }),
    ...(threads !== undefined && { threads }),
  });
  const report = await showRepositoryJob(job, shell);
  await shell.print(json ? `${JSON.stringify(report)}\n` : describeReport(report));
}

function rulesOf(flags: PruneFlags): KeepRules {
  const rules = {
    last: flags.keepLast,
    hourly: flags.keepHourly,
    daily: flags.keepDaily,
    weekly: flags.keepWeekly,
    monthly: flags.keepMonthly,
    yearly: flags.keepYearly,
    tags: flags.keepTag,
  };
  const given = Object.entries(rules).filter(([, value]) => value !== undefined);
  if (given.length > 0) return Object.fromEntries(given);
  throw new TypeError(
    'say what is kept, such as --keep-last 7: without a rule every point would go',
  );
}

function describeReport({ machines, dryRun, durationMs }: PruneReport): string {
  const lines = machines.flatMap((machine) => describeMachine(machine, dryRun));
  const end = dryRun ? 'Nothing was changed.' : `Done in ${formatDuration(durationMs)}.`;
  return `${lines.join('')}${end}\n`;
}

function describeMachine(pruned: PrunedMachine, dryRun: boolean): string[] {
  const { machine, kept, removed, merged, freedBytes } = pruned;
  const list = (numbers: readonly number[]) => numbers.join(', ') || 'none';
  const lines = kept.map(
    ({ number, rules }) => `${machine}/${number} stays: ${rules.join(', ')}\n`,
  );
  const does = dryRun ? 'would go' : 'are gone';
  lines.push(`${machine}: points that ${does}: ${list(removed)}\n`);
  if (removed.length === 0) return lines;
  const space =
    freedBytes < 0
      ? `${formatBytes(-freedBytes)} more are taken`
      : `${formatBytes(freedBytes)} free`;
  const numbers = [...new Set(merged.map(({ point }) => point))];
  lines.push(`${machine}: ${dryRun ? 'about ' : ''}${space}; merged into: ${list(numbers)}\n`);
  return lines;
}
