/** The options of `lacuna copy`, and what they mean together. */
import { type Command, Option } from 'commander';
import type { CopyOptions } from '../../../copy/index.js';
import {
  addOutputFlags,
  addRangeFlags,
  addRescueFlag,
  addSourceFlags,
  FORCE_FLAG,
  FORCE_TEXT,
  parseBytes,
  parseCount,
  parseImageOptions,
  type SourceFlags,
} from '../../device/index.js';
import { collect, type Shell } from '../../shell/index.js';

export interface CopyFlags extends SourceFlags {
  outputFormat?: CopyOptions['targetFormat'];
  options?: string[];
  compress?: boolean;
  bitmaps?: boolean;
  skipBrokenBitmaps?: boolean;
  backing?: string;
  backingFormat?: string;
  context?: string[];
  bitmap?: string[];
  mode?: CopyOptions['mode'];
  targetOffset?: number;
  dryRun?: boolean;
  clean?: boolean;
  allocated?: boolean;
  forceInUse?: boolean;
  allowEmpty?: boolean;
  inPlace?: boolean;
  existing?: boolean;
  targetIsZero?: boolean;
  detectZeroes?: CopyOptions['detectZeroes'];
  connections?: number;
  requests?: number;
  requestSize?: number;
  threads?: number;
  sequential?: boolean;
  digest?: boolean;
  digestFile?: string;
  verify?: boolean;
  preallocation?: CopyOptions['preallocation'];
  flush: boolean;
  resume?: string;
  rate?: number;
  rateFile?: string;
  onReadError?: CopyOptions['onReadError'];
  onWriteError?: CopyOptions['onWriteError'];
  retries?: number;
  backoff?: number;
  reconnect?: number;
  json?: boolean;
}

export function addCopyFlags(command: Command, shell: Shell): Command {
  for (const add of [addEndFlags, addChoiceFlags, addZeroFlags, addSpeedFlags, addSafetyFlags]) {
    add(command);
  }
  command
    .optionsGroup('Output:')
    .option('--json', 'print progress and report as JSON, one document per line');
  return addOutputFlags(command, shell);
}

function addEndFlags(command: Command): void {
  addRescueFlag(addSourceFlags(command.optionsGroup('The two ends:')))
    .addOption(
      new Option('-O, --output-format <format>', 'image format of the target').choices([
        'raw',
        'qcow2',
      ]),
    )
    .option(
      '-o, --options <list>',
      'how a new qcow2 image is made, as qemu-img has it: cluster_size=1M,compat=1.1,...',
      collect,
    )
    .option('-c, --compress', 'compress the clusters of a qcow2 image')
    .option(
      '-B, --backing <file>',
      'make a qcow2 image over this one, of what --context or --mode top selects',
    )
    .option('-F, --backing-format <format>', 'format of the backing file')
    .option('--bitmaps', 'give a new qcow2 image the bitmaps of the source as well')
    .option('--skip-broken-bitmaps', 'leave out those that are inconsistent')
    .option('--in-place', 'write into an existing target file instead of replacing it')
    .option('-n, --existing', 'like --in-place, but fail if there is no target yet')
    .option(FORCE_FLAG, FORCE_TEXT)
    .option('--allow-empty', 'let a source of 0 bytes replace a target that is not empty');
}

function addChoiceFlags(command: Command): void {
  addRangeFlags(command.optionsGroup('What to copy:'), 'copy')
    .option(
      '--target-offset <size>',
      'write from this byte of the existing target on; the rest of it is kept',
      parseBytes,
    )
    .option(
      '--context <name>',
      'copy only what this context marks: qemu:dirty-bitmap:NAME; may be repeated',
      collect,
    )
    .option(
      '--bitmap <name=file>',
      'copy only what this bitmap marks, which a file keeps; may be repeated',
      collect,
    )
    .addOption(
      new Option('--mode <mode>', 'copy all, or only what the top layer holds').choices([
        'full',
        'top',
      ]),
    )
    .option('--dry-run', 'print what would be moved, and move nothing; needs no target')
    .option(
      '--clean',
      'copy nothing: remove the unfinished files of killed or failed copies to TARGET',
    );
}

function addZeroFlags(command: Command): void {
  command
    .optionsGroup('Zeroes and space:')
    .option(
      '--target-is-zero',
      'the target reads as zero everywhere: write no zeroes to it; for full copies',
    )
    .addOption(
      new Option(
        '--detect-zeroes <mode>',
        'look for zeroes inside data, and write them as such (on) or as holes (unmap)',
      ).choices(['off', 'on', 'unmap']),
    )
    .option('--allocated', 'zero without making holes')
    .addOption(
      new Option(
        '--preallocation <mode>',
        'space that a new file takes at once: none, mapped (qcow2), allocated, or written with zeroes',
      ).choices(['off', 'metadata', 'falloc', 'full']),
    );
}

function addSpeedFlags(command: Command): void {
  command
    .optionsGroup('Speed:')
    .option(
      '--connections <n>',
      'connections to each side; each has a thread of its own',
      parseCount(1),
    )
    .option('--requests <n>', 'requests in flight on each connection', parseCount(1))
    .option('--request-size <size>', 'bytes of one request, such as 512K', parseBytes)
    .option('--threads <n>', 'worker threads; 0 does without', parseCount(0))
    .option('--rate <size>', 'bytes of data per second at most, such as 50M', parseBytes)
    .option(
      '--rate-file <file>',
      'read the rate from a file, and again on SIGHUP; an empty file means no limit',
    )
    .option('--sequential', 'write in the order of offsets');
}

function addSafetyFlags(command: Command): void {
  command
    .optionsGroup('Safety:')
    .option('--verify', 'read the target back and compare it with the source')
    .option('--digest', 'print the digest of what was read; see `lacuna digest`')
    .option('--digest-file <file>', 'and store it in this file; `lacuna digest --check` reads it')
    .option('--no-flush', 'do not wait until the target is durable')
    .option(
      '--resume <file>',
      'keep the state of the copy in this file, and continue from it if it exists',
    )
    .addOption(policyOption('read', 'left out, and zeroed in the target'))
    .addOption(policyOption('write', 'left out'))
    .option(
      '--retries <n>',
      'retry a failed request this many times before applying the policy (with retry: 5)',
      parseCount(0),
    )
    .option('--backoff <ms>', 'wait before the first retry; twice as long each time', parseCount(0))
    .option(
      '--reconnect <seconds>',
      'wait this long for a lost connection to come back (with retries: 30)',
      parseCount(0),
    );
}

function policyOption(side: 'read' | 'write', ignored: string): Option {
  const text =
    `when a ${side} fails: fail (report), try again and then fail (retry), wait for SIGUSR2 to try again (stop), ` +
    `or go on (ignore): what fails is ${ignored}`;
  const choices = ['report', 'retry', 'stop', 'ignore'];
  return new Option(`--on-${side}-error <policy>`, text).choices(choices);
}

/** What was said, for the engine; what was not is left out, so that the defaults are the engine's. */
export function optionsOf(flags: CopyFlags): Partial<CopyOptions> {
  const backing = { file: flags.backing, format: flags.backingFormat };
  const { image, preallocation } = parseImageOptions(flags.options ?? [], backing);
  const options = {
    sourceFormat: flags.format,
    forceShare: flags.forceShare,
    targetFormat: flags.outputFormat,
    image,
    compress: flags.compress,
    carryBitmaps: flags.bitmaps,
    skipBrokenBitmaps: flags.skipBrokenBitmaps,
    context: flags.context,
    mode: flags.mode,
    unmap: flags.allocated ? false : undefined,
    allowEmpty: flags.allowEmpty,
    inPlace: flags.existing ?? flags.inPlace,
    targetIsZero: flags.targetIsZero,
    detectZeroes: flags.detectZeroes,
    requests: flags.requests,
    requestSize: flags.requestSize,
    threads: threadsOf(flags),
    sequential: flags.sequential,
    digest: flags.digest ?? (flags.digestFile === undefined ? undefined : true),
    verify: flags.verify,
    preallocation: flags.preallocation ?? preallocation,
    flush: flags.flush,
    resume: flags.resume,
    rate: flags.rate,
    onReadError: flags.onReadError,
    onWriteError: flags.onWriteError,
    retry: retryOf(flags),
  };
  const said = Object.entries(options).filter(([, value]) => value !== undefined);
  return Object.fromEntries(said) as Partial<CopyOptions>;
}

function retryOf({ retries, backoff, reconnect }: CopyFlags): CopyOptions['retry'] {
  if (retries === undefined && backoff === undefined && reconnect === undefined) return undefined;
  return {
    ...(retries !== undefined && { attempts: retries }),
    ...(backoff !== undefined && { backoffMs: backoff }),
    ...(reconnect !== undefined && { reconnectSeconds: reconnect }),
  };
}

/** A connection belongs to one thread, so the smaller of the two numbers is what there will be of both. */
function threadsOf({ connections, threads }: CopyFlags): number | undefined {
  if (connections === undefined || threads === undefined) return threads ?? connections;
  return Math.min(connections, threads);
}
