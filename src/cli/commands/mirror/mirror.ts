import { tmpdir } from 'node:os';
import type { Command } from 'commander';
import { type ImageFormat, parseDescription } from '../../../block/index.js';
import type { Job } from '../../../job/index.js';
import type { NbdServerAddress } from '../../../nbd/index.js';
import type { MirrorProgress, MirrorReport } from '../../../qemu/index.js';
import {
  addOutputFlags,
  diskNamed,
  parseBytes,
  parseCount,
  serverAddress,
} from '../../device/index.js';
import {
  FORMAT_FLAG,
  FORMAT_TEXT,
  noteWarnings,
  printable,
  type Shell,
} from '../../shell/index.js';
import { formatBytes } from '../../text/index.js';
import { showJob, steerBySignals } from '../../view/index.js';

interface MirrorFlags {
  qmp: string;
  disk?: string;
  bitmap?: string;
  full?: boolean;
  once?: boolean;
  format?: ImageFormat;
  state?: string;
  flush?: number;
  nbd?: NbdServerAddress;
  serve?: NbdServerAddress;
  scratch?: string;
  rate?: number;
  json?: boolean;
}

const EXAMPLES = `
Examples:
  lacuna mirror --qmp /run/vm.qmp --disk vda --bitmap b0 replica.qcow2
  lacuna mirror --qmp /run/vm.qmp --disk vda --once replica.qcow2
  lacuna mirror --qmp /run/vm.qmp --disk vda --full nbd://host/replica --state vda.replica

The target is there, is as large as the disk, and holds what the disk held when the bitmap began: a restored
restore point, say. QEMU hands on what the guest writes from now on, and what the bitmap marks is copied beside that.
Ctrl-C ends it: once it is in step the replica then equals the disk as it was at one moment, and the exit code is 0.
"TARGET.replica" keeps what the next mirror begins from, so later nothing but the target is said. A mirror that died
is caught up by the next one. The guest never waits for the replica. See docs/mirror.md.`;

/** Tells commander what `lacuna mirror` takes, and what it does. */
export function registerMirror(command: Command, shell: Shell): void {
  command
    .description('Keeps a replica of a disk of a running machine in step, while the guest goes on.')
    .argument('<target>', 'the replica, which is there already')
    .requiredOption('--qmp <socket>', 'the socket of the monitor of the machine')
    .option('--disk <name>', 'the disk, or node:NAME (default: the only one that is written)')
    .option('--bitmap <name>', 'the first time: the bitmap that marks what the replica lacks')
    .option('--full', 'copy all of the disk, whatever the replica holds')
    .option('--once', 'end as soon as the replica has everything')
    .option(FORMAT_FLAG, FORMAT_TEXT)
    .option('--state <file>', 'keeps the state of the replica (default: TARGET.replica)')
    .option('--flush <ms>', 'make it durable at such intervals (default: 5000)', parseCount(10))
    .option('--rate <size>', 'bytes per second of what has changed before', parseBytes)
    .option(
      '--nbd <uri>',
      'where the NBD server of this QEMU listens, if it runs one',
      serverAddress,
    )
    .option(
      '--serve <uri>',
      'where to serve the replica to QEMU (default: a socket in the scratch folder)',
      serverAddress,
    )
    .option('--scratch <folder>', 'for a journal and sockets (default: that of temporary files)')
    .option('--json', 'print what came out as JSON')
    .addHelpText('after', EXAMPLES)
    .action((target: string, flags: MirrorFlags) => mirrorCommand(target, flags, shell));
  addOutputFlags(command, shell);
}

async function mirrorCommand(name: string, flags: MirrorFlags, shell: Shell): Promise<void> {
  const { qmp, nbd, serve, scratch = tmpdir(), bitmap, full, once, state, rate } = flags;
  const disk = flags.disk === undefined ? undefined : diskNamed(flags.disk);
  const { Machine } = await import('../../../qemu/index.js');
  await using machine = await Machine.connect({
    monitor: { path: qmp },
    nbd,
    folder: scratch,
    signal: shell.signal,
  });
  const target = parseDescription(name, { format: flags.format });
  const job = machine.mirror({
    ...{ disk, target, bitmap, full, once, state, serve, rate },
    flushMs: flags.flush,
  });
  await print(await show(job, shell), name, flags, shell);
}

/** A first interruption ends it as it should. */
async function show(job: Job<MirrorReport, MirrorProgress>, shell: Shell): Promise<MirrorReport> {
  const letGo = steerBySignals(job, shell);
  try {
    let isTold = false;
    return await showJob(job, shell, phaseOf, async ({ phase }) => {
      if (phase !== 'in step' || isTold) return;
      isTold = true;
      shell.note('lacuna: the replica is in step\n');
    });
  } finally {
    letGo();
  }
}

function phaseOf({ phase }: MirrorProgress): string {
  return phase === 'in step' ? 'In step' : 'Catching up';
}

async function print(
  report: MirrorReport,
  target: string,
  { json }: MirrorFlags,
  shell: Shell,
): Promise<void> {
  const { warnings, disk, equalBefore, copiedBytes, mirroredBytes, bitmap } = report;
  if (json) await shell.print(`${JSON.stringify(report)}\n`);
  else {
    await shell.print(
      `${printable(target)} equals ${printable(disk)} as it was at ${equalBefore}. ${formatBytes(copiedBytes)} were copied, ${formatBytes(mirroredBytes)} were written meanwhile.\nThe next mirror begins from the bitmap "${printable(bitmap)}" of the disk, which must stay.\n`,
    );
  }
  noteWarnings([...warnings], shell);
}
