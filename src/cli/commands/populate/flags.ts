import type { Command } from 'commander';
import type { PopulateOptions } from '../../../copy/index.js';
import type { NbdServerAddress } from '../../../nbd/index.js';
import { type SourceFlags, serverAddress } from '../../device/index.js';
import { collect } from '../../shell/index.js';

export interface PopulateFlags extends SourceFlags {
  output?: string;
  name: string;
  granularity?: number;
  mode?: PopulateOptions['mode'];
  json?: boolean;
}

/** Flags for a running machine. */
export interface MachineFlags {
  qmp?: string;
  into?: string[];
  merge?: string[];
  nbd?: NbdServerAddress;
  serve?: NbdServerAddress;
  scratch?: string;
}

/** How each is typed. */
const MACHINE_FLAGS = {
  into: '--into',
  merge: '--merge',
  nbd: '--nbd',
  serve: '--serve',
  scratch: '--scratch',
} as const satisfies Partial<Record<keyof MachineFlags, string>>;

export function addMachineFlags(command: Command): Command {
  return command
    .option('--qmp <socket>', 'of a running machine: the socket of its monitor')
    .option(
      '--into <disk:bitmap>',
      'with --qmp: the bitmap that takes it in (default: that of --name of the first source); may be repeated',
      collect,
    )
    .option(
      '--merge <disk:bitmap>',
      "with --qmp: take in this bitmap of the machine too, such as a backing file's; may be repeated",
      collect,
    )
    .option('--nbd <uri>', 'with --qmp: where the NBD server of this QEMU listens', serverAddress)
    .option(
      '--serve <uri>',
      'with --qmp: where to serve the bits to a QEMU that may not open our file',
      serverAddress,
    )
    .option(
      '--scratch <folder>',
      'with --qmp: for a small image and a journal (default: that of temporary files)',
    );
}

/** @throws TypeError where a flag for a running machine is given without one. */
export function refuseMachineFlags(flags: MachineFlags): void {
  for (const [key, flag] of Object.entries(MACHINE_FLAGS)) {
    if (flags[key as keyof MachineFlags] === undefined) continue;
    throw new TypeError(`${flag} is for a running machine: say --qmp SOCKET, or leave it out`);
  }
}

/** @throws TypeError where a flag for images at rest is given with a running machine. */
export function refuseFileFlags({
  output,
  format,
  forceShare,
  backingFolder,
}: PopulateFlags): void {
  const given = { '--output': output, '--format': format, '--force-share': forceShare };
  for (const [flag, value] of Object.entries({ ...given, '--backing-folder': backingFolder })) {
    if (value === undefined) continue;
    throw new TypeError(`${flag} is not for a running machine: leave it out, or leave out --qmp`);
  }
}
