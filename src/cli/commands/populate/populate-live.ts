/** `lacuna populate --qmp`: bitmaps of a running machine. */
import { tmpdir } from 'node:os';
import type {
  DiskChoice,
  Machine,
  MachineBitmap,
  MachinePopulateReport,
} from '../../../qemu/index.js';
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
  const { qmp = '', nbd, serve, mode, granularity, folder = tmpdir() } = flags;
  const { signal } = shell;
  const into = (flags.into ?? []).map((text) => bitmapNamed('--into', text));
  const merge = (flags.merge ?? []).map((text) => bitmapNamed('--merge', text));
  const { Machine } = await import('../../../qemu/index.js');
  await using machine = await Machine.connect({ monitor: { path: qmp }, nbd, folder, signal });
  const choose = await chooserOf(machine);
  const chosen = (bitmap: NamedBitmap): MachineBitmap => ({ ...bitmap, disk: choose(bitmap.disk) });
  const targets = into.length > 0 ? into : [{ disk: names[0], name: flags.name }];
  const job = machine.populate({
    sources: names.map(choose),
    targets: targets.map((target) => ({ ...chosen(target), granularity })),
    merge: merge.map(chosen),
    ...{ mode, serve, signal },
  });
  await print(await showReading(job, 'Looking', shell), flags, shell);
}

interface NamedBitmap {
  readonly disk: string;
  readonly name: string;
}

/** No name of a node has a colon. */
function bitmapNamed(flag: string, text: string): NamedBitmap {
  const colon = text.indexOf(':');
  if (colon > 0 && colon < text.length - 1) {
    return { disk: text.slice(0, colon), name: text.slice(colon + 1) };
  }
  throw new TypeError(`${flag} takes DISK:BITMAP, such as vda:backup0, not ${text}`);
}

/** What is no disk of the machine is a node. */
async function chooserOf(machine: Machine): Promise<(name: string) => DiskChoice> {
  const disks = await machine.inspect();
  const isDisk = (name: string) => disks.some((disk) => disk.name === name || disk.qdev === name);
  return (name) => (isDisk(name) ? name : { node: name });
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
