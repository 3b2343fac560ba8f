import { type PlanOptions, type PlanTotals, plan } from '../../../copy/index.js';
import { noteWarnings, type Shell } from '../../shell/index.js';
import { formatBytes, formatShare } from '../../text/index.js';

/** Prints what a copy would move, without a target and without moving it. */
export async function dryRun(
  options: PlanOptions,
  { json }: { json?: boolean },
  shell: Shell,
): Promise<void> {
  const { source, sourceFormat, forceShare, mode, context, bitmap, signal } = options;
  const { data, zero, totals, warnings } = await plan({
    source,
    sourceFormat,
    forceShare,
    mode,
    context,
    bitmap,
    signal,
  });
  data.free();
  zero.free();
  if (json) await shell.print(`${JSON.stringify({ type: 'plan', ...totals, warnings })}\n`);
  else await shell.print(describeTotals(totals));
  noteWarnings(warnings, shell);
}

/** The totals of a plan for people. */
function describeTotals({ size, dataBytes, zeroBytes, holeBytes, cleanBytes }: PlanTotals): string {
  const line = (label: string, bytes: number, what: string) =>
    `${label.padEnd(6)} ${formatBytes(bytes).padStart(10)}  ${formatShare(bytes, size).padStart(9)}  ${what}\n`;
  return [
    `Of a disk of ${formatBytes(size)} a copy would move ${formatBytes(dataBytes)}.\n`,
    line('data', dataBytes, 'read and written'),
    line('zero', zeroBytes, 'made zero where the target is not, without being read'),
    line('hole', holeBytes, 'the same'),
    line('clean', cleanBytes, 'left alone'),
  ].join('');
}
