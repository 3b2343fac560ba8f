import { checkRate } from '../../job/index.js';
import { checkKnown, optionCheck } from '../../util/index.js';
import type { DiskChoice } from '../inspect/index.js';
import { checkGeneration } from '../state/index.js';
import type { ViewKind } from '../view/index.js';
import { LEAST_SCRATCH } from './scratch-limit.js';

/** Whether the file systems of the guest are frozen for the moment of the backup. */
export type FreezePolicy = 'require' | 'try' | 'off';

/** What a backup is planned from. */
export interface BackupPlanOptions {
  /** The disks, by their names or by nodes. Default: all that the machine can write. */
  readonly disks?: readonly DiskChoice[] | undefined;
  /**
   * The generation in the newest manifest: the backup that an increment begins from. Leave it out where there is none. What
   * the bitmaps of the machine mean is decided by this alone.
   */
  readonly base?: string | undefined;
  /**
   * `auto`: an increment of each disk where that is possible, else a full backup. `full`: all of every disk, from which
   * increments can begin. `copy`: all of every disk, without a trace in the machine; increments go on from the base.
   * Default `auto`.
   */
  readonly mode?: 'auto' | 'full' | 'copy' | undefined;
  /** Default: the best that this QEMU can give. `overlay` is possible in every version, `access` only from 8.0. */
  readonly view?: ViewKind | undefined;
  /**
   * How the data comes here. `pull`: it is read from an NBD server of QEMU's. `push`: jobs of QEMU's write it to a server
   * of this package, into files in the folder, which must have room for all that is taken; the disks of the session can be read
   * once they are done, and the view ends then, where all of every disk is taken. From QEMU 8.0 on, and not through libvirt.
   * Default `pull`.
   */
  readonly fetch?: Fetch | undefined;
  /** Fires to end the work; it fails with ERR_ABORTED. */
  readonly signal?: AbortSignal | undefined;
}

/** How the data of a backup comes from QEMU. */
export type Fetch = 'pull' | 'push';

/** How a backup is made. */
export interface BackupOptions extends BackupPlanOptions {
  /** The name of the new point in time, which the manifest must keep. Default: one that no other one has. */
  readonly generation?: string | undefined;
  /** The bitmap of the base stays when the backup succeeds, for differential backups. Default false. */
  readonly keepBase?: boolean | undefined;
  /**
   * `require`: no backup without a freeze. `try`: a warning where it fails. Default: `try` where the machine has an agent,
   * else `off`.
   */
  readonly freeze?: FreezePolicy | undefined;
  /** Milliseconds that the agent may take to freeze. Default 10,000. */
  readonly freezeTimeoutMs?: number | undefined;
  /**
   * Milliseconds that the guest may stay frozen. Then it is thawed, whatever this process does: a process of its own sees to
   * it. Default 10,000.
   */
  readonly freezeDeadlineMs?: number | undefined;
  /**
   * Bytes that the scratch image of a disk may have. When one has more, the backup is given up in favour of the guest.
   * Default: the disks share 80 % of what is free in the folder.
   */
  readonly scratchBytes?: number | undefined;
  /** Bytes per second that QEMU pushes at most, 1 or more, of all disks together. Only with `fetch: 'push'`. Default: no limit. */
  readonly pushRate?: number | undefined;
}

const PLAN = {
  disks: 'any',
  base: 'any',
  mode: 'any',
  view: 'any',
  fetch: 'any',
  signal: 'signal',
} as const;

const checkPlan = optionCheck<BackupPlanOptions>(PLAN);
const checkBackup = optionCheck<BackupOptions>({
  ...PLAN,
  generation: 'any',
  keepBase: 'flag',
  freeze: 'any',
  freezeTimeoutMs: 'any',
  freezeDeadlineMs: 'any',
  scratchBytes: 'any',
  pushRate: 'any',
});

const LONGEST_FREEZE_MS = 600_000;

export function checkPlanOptions(options: BackupPlanOptions, owner = 'Machine.plan'): void {
  checkPlan(owner, options);
  checkValues(owner, options);
}

export function checkBackupOptions(options: BackupOptions, owner = 'Machine.backup'): void {
  checkBackup(owner, options);
  checkValues(owner, options);
  const { generation, freeze, scratchBytes, pushRate } = options;
  if (generation !== undefined) checkGeneration(owner, generation);
  if (generation !== undefined && generation === options.base) {
    throw new TypeError(
      `${owner}: generation and base are the same: a new point in time needs a new name`,
    );
  }
  for (const name of ['freezeTimeoutMs', 'freezeDeadlineMs'] as const) {
    const value = options[name] ?? 1;
    if (!(value > 0 && value <= LONGEST_FREEZE_MS)) {
      throw new RangeError(
        `${owner}: ${name} must be from 1 to ${LONGEST_FREEZE_MS}, not ${value}`,
      );
    }
  }
  if (freeze !== undefined) checkKnown(owner, 'freeze', freeze, ['require', 'try', 'off']);
  checkScratchBytes(owner, scratchBytes);
  if (pushRate === undefined) return;
  if (options.fetch !== 'push') throw new TypeError(`${owner}: pushRate goes with fetch: 'push'`);
  checkRate(pushRate);
}

/** @throws RangeError */
export function checkScratchBytes(owner: string, scratchBytes: number | undefined): void {
  if (scratchBytes === undefined || scratchBytes >= LEAST_SCRATCH) return;
  throw new RangeError(`${owner}: scratchBytes must be 1 MiB or more, not ${scratchBytes}`);
}

function checkValues(owner: string, { base, mode, view, fetch, disks }: BackupPlanOptions): void {
  if (base !== undefined) checkGeneration(owner, base);
  if (mode !== undefined) checkKnown(owner, 'mode', mode, ['auto', 'full', 'copy']);
  if (view !== undefined) checkKnown(owner, 'view', view, ['overlay', 'access']);
  if (fetch !== undefined) checkKnown(owner, 'fetch', fetch, ['pull', 'push']);
  if (fetch === 'push' && view === 'overlay') {
    throw new TypeError(`${owner}: QEMU pushes from a view of the kind access: leave out view`);
  }
  if (disks === undefined || (Array.isArray(disks) && disks.length > 0)) return;
  throw new TypeError(`${owner}: disks must be a list of at least one disk`);
}
