/** How jobs are begun: what their commands and transactions say, in the words of the graph. */
import type {
  BackupJobOptions,
  CommitJobOptions,
  Graph,
  JobErrorPolicy,
  MirrorOptions,
  Node,
  StreamJobOptions,
} from '../../graph/index.js';
import { type Control, isId, nodeNamed, refusal } from '../core/index.js';
import {
  about,
  count,
  flag,
  integer,
  optional,
  text,
  type ValuesOf,
  word,
} from '../schema/index.js';
import { bitmapMode, copyMode, onError, syncMode } from './types.js';

/** What all jobs can be told. */
const JOB = {
  'job-id': about(optional(text), 'what it is called; needed'),
  speed: about(optional(integer), 'bytes per second; 0 for no limit'),
  'auto-finalize': about(
    optional(flag),
    'whether it ends by itself when its work is done, or waits for job-finalize; default true',
  ),
  'auto-dismiss': about(
    optional(flag),
    'whether it disappears by itself when it has ended; default true',
  ),
} as const;

const POLICIES = {
  'on-source-error': optional(onError),
  'on-target-error': optional(onError),
} as const;

export const BACKUP = {
  ...JOB,
  device: about(text, 'the node that is copied'),
  target: about(text, 'a node that nobody else uses'),
  sync: syncMode,
  bitmap: optional(text),
  'bitmap-mode': optional(bitmapMode),
  'target-is-zero': about(optional(flag), 'the target reads as zero; default false'),
  'on-cbw-error': optional(word('OnCbwError', 'break-guest-write', 'break-snapshot')),
  'filter-node-name': about(
    optional(text),
    'what the node is called that keeps what is about to be written, for a snapshot-access over it',
  ),
  ...POLICIES,
} as const;

export const MIRROR = {
  ...JOB,
  device: about(text, 'the node that is copied'),
  target: about(text, 'a node that nobody else uses'),
  sync: syncMode,
  bitmap: about(optional(text), 'for sync incremental and bitmap, which QEMU does not have here'),
  'bitmap-mode': optional(bitmapMode),
  'target-is-zero': about(optional(flag), 'the target reads as zero; default false'),
  'copy-mode': about(optional(copyMode), 'default background'),
  granularity: about(optional(count), 'has no effect'),
  'buf-size': about(optional(integer), 'has no effect'),
  ...POLICIES,
} as const;

export const COMMIT = {
  ...JOB,
  device: about(text, 'the uppermost image of the chain'),
  'top-node': about(optional(text), 'the uppermost image that is committed; default: device'),
  'base-node': about(optional(text), 'the image that gets it; default: the lowest'),
  'backing-file': about(optional(text), 'how the image above names the base from then on'),
  'on-error': optional(onError),
} as const;

export const STREAM = {
  ...JOB,
  device: about(text, 'the image that gets what is below it'),
  'base-node': about(optional(text), 'the image that stays below it; default: none'),
  bottom: about(optional(text), 'the lowest image that goes, in place of base-node'),
  'backing-file': about(optional(text), 'how the image names the base from then on'),
  'on-error': optional(onError),
} as const;

export type Backup = ValuesOf<typeof BACKUP>;
export type Mirror = ValuesOf<typeof MIRROR>;
type Commit = ValuesOf<typeof COMMIT>;
type Stream = ValuesOf<typeof STREAM>;

interface JobArguments {
  readonly 'job-id'?: string;
  readonly speed?: number;
  readonly 'auto-finalize'?: boolean;
  readonly 'auto-dismiss'?: boolean;
}

/** How a job is listed. @throws QmpCommandError */
export function listingOf<T extends string>({ jobs }: Control, type: T, args: JobArguments) {
  const {
    speed = 0,
    'auto-finalize': autoFinalize = true,
    'auto-dismiss': autoDismiss = true,
  } = args;
  const id = jobs.checkFree(args['job-id']);
  if (speed < 0) throw refusal("Parameter 'speed' expects a non-negative value");
  return { id, type, autoFinalize, autoDismiss, speed };
}

/** @throws QmpCommandError */
export function backupOptions({ graph }: Control, args: Backup): BackupJobOptions {
  const { device, target, sync, bitmap, 'bitmap-mode': mode } = args;
  const source = nodeNamed(graph, device);
  const goal = nodeNamed(graph, target);
  checkBitmapUse(source, args);
  if (device === target) throw refusal('Source and target cannot be the same');
  if (sync === 'none' && args['auto-finalize'] === false) {
    throw refusal(
      'auto-finalize=false is not offered for sync none, which ends when it is cancelled',
    );
  }
  if (source.size !== goal.size) throw refusal('Source and target image have different sizes');
  const { 'on-cbw-error': onCopyError, 'filter-node-name': filter } = args;
  checkFilterName(graph, filter);
  return {
    disks: [{ node: device, target, ...(filter !== undefined && { filter }) }],
    sync,
    ...(bitmap !== undefined && { bitmap }),
    ...(bitmap !== undefined && sync !== 'incremental' && mode && { bitmapMode: mode }),
    targetIsZero: args['target-is-zero'] ?? false,
    // A backup of QEMU fails the guest's write unless it is told otherwise.
    onCopyError: onCopyError ?? 'break-guest-write',
    onSourceError: strictPolicy(args['on-source-error'], 'on-source-error'),
    onTargetError: strictPolicy(args['on-target-error'], 'on-target-error'),
    ...commonOf(args),
  };
}

/** @throws QmpCommandError */
export function mirrorOptions({ graph }: Control, args: Mirror): MirrorOptions {
  const { device, target, sync, bitmap, 'bitmap-mode': mode, 'copy-mode': copy } = args;
  const source = nodeNamed(graph, device);
  nodeNamed(graph, target);
  if (device === target) throw refusal("Can't mirror node into itself");
  checkBitmapUse(source, args);
  return {
    node: device,
    target,
    sync,
    ...(bitmap !== undefined && { bitmap }),
    ...(bitmap !== undefined && sync !== 'incremental' && mode && { bitmapMode: mode }),
    ...(copy !== undefined && { copyMode: copy }),
    targetIsZero: args['target-is-zero'] ?? false,
    onSourceError: policyOf(args['on-source-error']),
    onTargetError: policyOf(args['on-target-error']),
    ...commonOf(args),
  };
}

/** @throws QmpCommandError */
export function commitOptions(control: Control, args: Commit): CommitJobOptions {
  const { graph } = control;
  const { device, 'top-node': top = device, 'base-node': base } = args;
  if (!graph.nodes.some(({ name }) => name === device)) {
    throw refusal(`Device '${device}' not found`, 'DeviceNotFound');
  }
  nodeNamed(graph, top, '');
  const lowest = base ?? lowestBelow(control, top);
  nodeNamed(graph, lowest, '');
  if (lowest === top) throw refusal('cannot commit an image into itself');
  const policy = strictPolicy(args['on-error'], 'on-error');
  return {
    node: top,
    base: lowest,
    ...backingOf(control, args, lowest),
    onSourceError: policy,
    onTargetError: policy,
    ...commonOf(args),
  };
}

/** @throws QmpCommandError */
export function streamOptions(control: Control, args: Stream): StreamJobOptions {
  const { graph } = control;
  const { device, 'base-node': base, bottom } = args;
  nodeNamed(graph, device);
  for (const name of [base, bottom]) if (name !== undefined) nodeNamed(graph, name, '');
  if (base !== undefined && bottom !== undefined) {
    throw refusal("'bottom' and 'base-node' cannot be specified at the same time");
  }
  const policy = strictPolicy(args['on-error'], 'on-error');
  return {
    node: device,
    ...(base !== undefined && { base }),
    ...(bottom !== undefined && { bottom }),
    ...backingOf(control, args, base),
    onSourceError: policy,
    onTargetError: policy,
    ...commonOf(args),
  };
}

/** @throws QmpCommandError */
function checkFilterName(graph: Graph, name: string | undefined): void {
  if (name === undefined) return;
  if (!isId(name)) throw refusal(`Invalid node-name: '${name}'`);
  if (!graph.nodes.some((node) => node.name === name)) return;
  throw refusal(`Duplicate nodes with node-name='${name}'`);
}

/** In the words of QEMU, and in the order in which it looks. @throws QmpCommandError */
function checkBitmapUse(
  source: Node,
  { sync, bitmap, 'bitmap-mode': mode }: Pick<Backup, 'sync' | 'bitmap' | 'bitmap-mode'>,
): void {
  if (bitmap === undefined) {
    if (sync === 'incremental' || sync === 'bitmap') {
      throw refusal(`must provide a valid bitmap name for '${sync}' sync mode`);
    }
    if (mode !== undefined) throw refusal('Cannot specify bitmap sync mode without a bitmap');
    return;
  }
  if (sync === 'incremental' && mode !== undefined && mode !== 'on-success') {
    throw refusal("Bitmap sync mode must be 'on-success' when using sync mode 'incremental'");
  }
  if (!source.bitmaps.some(({ name }) => name === bitmap)) {
    throw refusal(`Bitmap '${bitmap}' could not be found`);
  }
  if (sync === 'incremental') return;
  if (mode === undefined) throw refusal('Bitmap sync mode must be given when providing a bitmap');
  if (sync === 'none') {
    throw refusal("sync mode 'none' does not produce meaningful bitmap outputs");
  }
  if (mode === 'never' && sync !== 'bitmap') {
    const effect = 'has no meaningful effect when combined with';
    throw refusal(`Bitmap sync mode 'never' ${effect} sync mode '${sync}'`);
  }
}

function lowestBelow(control: Control, name: string): string {
  const { graph } = control;
  const edge = graph.edges.find(({ parent, child }) => parent === name && child === 'backing');
  if (edge !== undefined) return lowestBelow(control, edge.node);
  const isFilter = graph.nodes.find((node) => node.name === name)?.isFilter;
  const below = graph.edges.find(({ parent, child }) => parent === name && child === 'file');
  return isFilter && below !== undefined ? lowestBelow(control, below.node) : name;
}

type OnError = 'report' | 'ignore' | 'enospc' | 'stop' | 'auto';

/** `auto` is, for jobs that know of no guest, the default of QEMU. */
function policyOf(policy: OnError = 'report'): JobErrorPolicy {
  if (policy === 'enospc') {
    throw refusal('the error policy enospc is not offered here: say stop, report or ignore');
  }
  return policy === 'auto' ? 'report' : policy;
}

function strictPolicy(policy: OnError | undefined, name: string): 'report' | 'stop' {
  const known = policyOf(policy);
  if (known !== 'ignore') return known;
  throw refusal(
    `${name}=ignore is not offered here: what was not copied would be missing in silence`,
  );
}

/** The format of the backing file is that of the node which is in it. */
function backingOf(
  { graph }: Control,
  { 'backing-file': filename }: { 'backing-file'?: string },
  base: string | undefined,
) {
  if (filename === undefined) return {};
  if (base === undefined) throw refusal('backing file specified, but no base');
  const { details } = nodeNamed(graph, base).device;
  return { backing: { filename, format: details?.format ?? 'raw' } };
}

/** What is said to all jobs in the same words. The daemon itself keeps those that are to be dismissed. */
function commonOf({ speed = 0, 'auto-finalize': autoFinalize = true }: JobArguments) {
  return { autoFinalize, ...(speed !== 0 && { rate: speed }) };
}
