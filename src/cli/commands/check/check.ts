import { type Command, Option } from 'commander';
import {
  type CheckOptions,
  type CheckReport,
  checkQcow2,
  type ImageFormat,
} from '../../../block/index.js';
import { LacunaError } from '../../../errors/index.js';
import { counted } from '../../../util/index.js';
import {
  Exit,
  FORMAT_FLAG,
  IMAGE_FORMAT_TEXT,
  printable,
  SHARE_FLAG,
  SHARE_TEXT,
  type Shell,
} from '../../shell/index.js';
import { formatShare } from '../../text/index.js';

interface CheckFlags {
  format?: ImageFormat;
  forceShare?: boolean;
  repair?: CheckOptions['repair'];
  quiet?: boolean;
  json?: boolean;
}

/** Those of `qemu-img check`. */
const CheckExit = { sound: Exit.done, failed: Exit.failed, corrupt: 2, leaks: 3, unknown: 63 };

const EXAMPLES = `
Examples:
  lacuna check disk.qcow2
  lacuna check --json disk.qcow2 | jq .leaks
  lacuna check --repair leaks disk.qcow2
  lacuna check --repair all disk.qcow2

Exit codes are those of qemu-img check: 0 nothing is wrong, 1 the check failed, 2 corruptions (or misuse), 3 leaks and
nothing worse, 63 images of this format cannot be checked. Only the image itself is looked at, not what lies below it.
An image whose tables have wrong entries is not changed by --repair: copy what can be read of it.`;

/** Tells commander what `lacuna check` takes, and what it does. */
export function registerCheck(command: Command, shell: Shell): void {
  command
    .description('Looks for corruptions and leaked clusters in a qcow2 image, and repairs them.')
    .argument('<image>', 'the image to look at')
    .option(FORMAT_FLAG, IMAGE_FORMAT_TEXT)
    .option(SHARE_FLAG, SHARE_TEXT)
    .addOption(
      new Option(
        '-r, --repair <mode>',
        'make refcounts right: only where space is lost (leaks), or wherever they are wrong (all)',
      ).choices(['leaks', 'all']),
    )
    .option('-q, --quiet', 'print nothing but errors')
    .option('--json', 'print one JSON document, with the names of qemu-img')
    .addHelpText('after', EXAMPLES)
    .action((image: string, flags: CheckFlags) => checkCommand(image, flags, shell));
}

async function checkCommand(name: string, flags: CheckFlags, shell: Shell): Promise<void> {
  const { format, forceShare, repair, quiet, json } = flags;
  const options = { format, forceShare, repair, signal: shell.signal };
  const report = await checkQcow2(name, options).catch((error) => {
    if (isUnknownFormat(error)) shell.failureCode = CheckExit.unknown;
    throw error;
  });
  for (const problem of report.problems) shell.note(`lacuna: ${problem}\n`);
  const told = report.problems.length;
  const all = report.corruptions + report.leaks + report.checkErrors;
  if (all > told) shell.note(`lacuna: and ${counted(all - told, 'more problem')}\n`);
  shell.exitCode = exitOf(report);
  if (json) await shell.print(`${JSON.stringify(documentOf(name, report))}\n`);
  else if (!quiet) await shell.print(describe(name, report, repair));
}

function isUnknownFormat(error: unknown): boolean {
  return error instanceof LacunaError && error.code === 'ERR_DEVICE_FORMAT';
}

function exitOf({ checkErrors, corruptions, leaks }: CheckReport): number {
  if (checkErrors > 0) return CheckExit.failed;
  if (corruptions > 0) return CheckExit.corrupt;
  return leaks > 0 ? CheckExit.leaks : CheckExit.sound;
}

/** As `qemu-img check --output=json` has it, but with zeroes, which that leaves out. */
function documentOf(filename: string, report: CheckReport): object {
  return {
    filename,
    format: 'qcow2',
    'check-errors': report.checkErrors,
    corruptions: report.corruptions,
    'corruptions-fixed': report.corruptionsFixed,
    leaks: report.leaks,
    'leaks-fixed': report.leaksFixed,
    'image-end-offset': report.imageEnd,
    'total-clusters': report.totalClusters,
    'allocated-clusters': report.allocatedClusters,
    'fragmented-clusters': report.fragmentedClusters,
    'compressed-clusters': report.compressedClusters,
    ...(report.marked !== undefined && { marked: report.marked }),
    problems: report.problems,
  };
}

function describe(name: string, report: CheckReport, repair: CheckFlags['repair']): string {
  const { corruptions, leaks, checkErrors, corruptionsFixed, leaksFixed } = report;
  const image = printable(name);
  const lines: string[] = [];
  if (corruptionsFixed + leaksFixed > 0) {
    const fixed = [
      ...(corruptionsFixed > 0 ? [counted(corruptionsFixed, 'corruption')] : []),
      ...(leaksFixed > 0 ? [counted(leaksFixed, 'leaked cluster')] : []),
    ];
    lines.push(`Repaired ${fixed.join(' and ')} of ${image}.`);
  }
  if (checkErrors > 0) {
    lines.push(`${counted(checkErrors, 'error')} kept ${image} from being checked whole.`);
  }
  if (corruptions > 0) lines.push(describeCorruptions(report, repair));
  if (leaks > 0) {
    lines.push(`${counted(leaks, 'leaked cluster')}: only space is lost; --repair leaks frees it.`);
  }
  if (corruptions + leaks + checkErrors === 0) lines.push(`No errors were found in ${image}.`);
  if (report.marked !== undefined && report.repairable) {
    const mark = report.marked === 'dirty' ? 'not closed' : 'corrupt';
    lines.push(`It is marked as ${mark}: --repair all clears the mark.`);
  }
  return `${[...lines, describeUse(report)].join('\n')}\n`;
}

function describeCorruptions(
  { corruptions, repairable }: CheckReport,
  repair: CheckFlags['repair'],
): string {
  const found = `${counted(corruptions, 'corruption')} found: do not write to the image.`;
  if (!repairable) {
    return `${found} Its tables have wrong entries, so it cannot be repaired here, and was not changed: copy what can be read ("lacuna copy --rescue"), or restore it from a backup.`;
  }
  return repair === 'all' ? found : `${found} --repair all makes its refcounts anew.`;
}

function describeUse(report: CheckReport): string {
  const { allocatedClusters, totalClusters, fragmentedClusters, compressedClusters } = report;
  const share = formatShare(allocatedClusters, totalClusters);
  const fragmented = formatShare(fragmentedClusters, allocatedClusters);
  const compressed = formatShare(compressedClusters, allocatedClusters);
  const clusters = counted(totalClusters, 'cluster');
  return `Allocated: ${allocatedClusters} of ${clusters} (${share}), ${fragmented} fragmented, ${compressed} compressed; the image ends at byte ${report.imageEnd}.`;
}
