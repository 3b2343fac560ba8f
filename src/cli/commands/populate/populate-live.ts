/** `lacuna populate --qmp`: bitmaps of a running machine. */
import { tmpdir } from 'node:os';
import type { MachinePopulateReport } from '../../../qemu/index.js';
import { bitmapNamed, diskNamed } from '../../device/index.js';
import { noteWarnings, printable, type Shell } from '../../shell/index.js';
import { formatBytes, formatShare } from '../../text/index.js';
import { showReading } from '../../view/index.js';
import { type MachineFlags, type PopulateFlags, refuseFileFlags } from './flags.js';

export async function populateLive(
  names: string[],
  flags: PopulateFlags & MachineFlags,
  shell: Shell,
): Promise<void> {
  refuseFileFlags(flags);
  const { qmp = '', nbd, serve, mode, granularity, scratch = tmpdir() } = flags;
  const { signal } = shell;
  const into = (flags.into ?? []).map((text) => bitmapNamed('--into', text));
  const merge = (flags.merge ?? []).map((text) => bitmapNamed('--merge', text));
  const { Machine } = await import('../../../qemu/index.js');
  await using machine = await Machine.connect({
    monitor: { path: qmp },
    nbd,
    folder: scratch,
    signal,
  });
  const sources = names.map(diskNamed);
  const targets = into.length > 0 ? into : [{ disk: sources[0], name: flags.name }];
  const job = machine.populate({
    targets: targets.map((target) => ({ ...target, granularity })),
    ...{ sources, merge, mode, serve, signal },
  });
  await print(await showReading(job, 'Looking', shell), flags, shell);
}

async function print(
  { bitmaps, warnings }: MachinePopulateReport,
  { json }: PopulateFlags,
  shell: Shell,
): Promise<void> {
  if (json) await shell.print(`${JSON.stringify({ bitmaps, warnings })}\n`);
  else await shell.print(bitmaps.map(lineOf).join(''));
  noteWarnings([...warnings], shell);
}

function lineOf({ disk, name, size, dirtyBytes, persistent }: MachinePopulateReport['bitmaps'][0]) {
  const share = `${formatBytes(dirtyBytes)} of ${formatBytes(size)} (${formatShare(dirtyBytes, size)})`;
  const end = persistent ? '' : ' It ends with QEMU.';
  return `${share} are dirty in "${printable(name)}" of ${printable(disk)}.${end}\n`;
}
