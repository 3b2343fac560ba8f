import { JOB_OPTIONS, type JobOptions, type JobProgress } from '../../job/index.js';
import type { QmpAddress } from '../../qmp/index.js';
import { optionCheck } from '../../util/index.js';
import { checkScratchBytes } from '../session/index.js';

/** Where a machine is moved to. */
export interface MigrateOptions extends JobOptions {
  /** The monitor of the QEMU that was started with `-incoming defer`, and with the same devices. */
  readonly destination: QmpAddress;
  /**
   * What has marked the writes of each disk since its image on the destination was as the disk is: a bitmap of this name on
   * every disk, or the generation of a backup.
   */
  readonly bitmap: string;
  /**
   * The images that the destination has opened, by the names of the disks: all that the machine can write. Usually each is an
   * overlay over the last restore point.
   */
  readonly targets: Readonly<Record<string, string>>;
  /**
   * Where the memory is sent, as `migrate-incoming` and `migrate` of QEMU take it, such as `tcp:HOST:PORT`. Default: a socket
   * in the folder of the machine, for two QEMUs of one host.
   */
  readonly stream?: string | undefined;
  /**
   * Dirty bytes, of all disks, that may be left for when the machine stands still: while there are more, another round is
   * made. Default 16 MiB.
   */
  readonly leaveBytes?: number | undefined;
  /**
   * Bytes that a scratch image may have in a round. Where the guest overwrites more, the migration is given up. Default: as of
   * `Machine.backup`.
   */
  readonly scratchBytes?: number | undefined;
}

/** What is asked before a machine is moved. */
export type MigratePlanOptions = Pick<
  MigrateOptions,
  'destination' | 'bitmap' | 'targets' | 'signal'
>;

/** What a migration does with a disk. */
export interface MigratePlanDisk {
  /** Its name. */
  readonly name: string;
  /** Its file on the source. */
  readonly file: string;
  /** Its image on the destination. */
  readonly target: string;
  /** Bytes. */
  readonly size: number;
  /** The bitmap that says what has to move. */
  readonly bitmap: string;
  /** Bytes that it marks, in whole granules. */
  readonly dirtyBytes: number;
  /** Whether the image can keep the bitmap, from which the next increment begins. */
  readonly carriesBitmap: boolean;
  /** Names of its other bitmaps, which do not arrive: what counts from them is full next time. */
  readonly otherBitmaps: readonly string[];
}

/** What a migration would move, and what is in its way. */
export interface MigratePlan {
  /** The disks. */
  readonly disks: readonly MigratePlanDisk[];
  /** Bytes of the machine's memory; less is sent where that is zero, more where the guest writes it meanwhile. */
  readonly memoryBytes: number;
  /** What is in the way; with any of these a migration fails before it changes anything. */
  readonly obstacles: readonly string[];
}

/**
 * What a migration is doing: copying what is dirty while the guest runs, sending memory, copying the rest while it stands
 * still, handing over, or nothing any more.
 */
export type MigratePhase = 'rounds' | 'memory' | 'last' | 'switch' | 'done';

/** A moment of a migration. `totalBytes` grows with every round, and by what the memory turns out to have. */
export interface MigrateProgress extends JobProgress {
  /** What it is doing. */
  phase: MigratePhase;
  /** The number of the round, from 1; 0 before the first. */
  round: number;
}

/** A copy of what was dirty at one point in time. */
export interface MigrateRound {
  /** Bytes that were written as data. */
  readonly movedBytes: number;
  /** Bytes that were written as zeroes, without moving data. */
  readonly zeroedBytes: number;
  /** Dirty bytes that the guest has left at its end. */
  readonly leftBytes: number;
  /** Milliseconds. */
  readonly durationMs: number;
}

/** What a migration came to: the machine runs on the destination. */
export interface MigrateReport {
  /** The rounds; in the last one the machine stood still. */
  readonly rounds: readonly MigrateRound[];
  /** Bytes of memory that were sent. */
  readonly memoryBytes: number;
  /** Milliseconds for which the machine stood still; undefined where it did not run before. */
  readonly pauseMs?: number | undefined;
  /** Whether the machine runs on the destination: not where it stood still on the source before. */
  readonly isRunning: boolean;
  /** The disks, as they were planned. */
  readonly disks: readonly MigratePlanDisk[];
  /** What a person should know although the machine has moved. */
  readonly warnings: readonly string[];
}

const PLAN = {
  destination: { needed: 'the monitor of the QEMU that the machine is to run in' },
  bitmap: { needed: 'that has marked the writes, or the generation of a backup' },
  targets: { needed: 'the images on the destination: { DISK: PATH }' },
} as const;

const checkPlan = optionCheck<MigratePlanOptions>({ ...PLAN, signal: 'signal' });
const checkAll = optionCheck<MigrateOptions>({
  ...PLAN,
  ...JOB_OPTIONS,
  stream: 'any',
  leaveBytes: 'any',
  scratchBytes: 'any',
});

const STREAM = /^(unix:.|tcp:.+:\d+$)/s;

/** @throws TypeError */
export function checkMigratePlanOptions(options: MigratePlanOptions): void {
  checkPlan('Machine.planMigration', options);
  checkValues('Machine.planMigration', options);
}

/** @throws TypeError, RangeError */
export function checkMigrateOptions(options: MigrateOptions): void {
  const owner = 'Machine.migrate';
  checkAll(owner, options);
  checkValues(owner, options);
  const { stream, leaveBytes = 0, scratchBytes } = options;
  checkScratchBytes(owner, scratchBytes);
  if (stream !== undefined && !STREAM.test(stream)) {
    throw new TypeError(`${owner}: stream is tcp:HOST:PORT or unix:PATH, not ${stream}`);
  }
  if (Number.isSafeInteger(leaveBytes) && leaveBytes >= 0) return;
  throw new RangeError(`${owner}: leaveBytes must be a number of bytes, not ${leaveBytes}`);
}

function checkValues(owner: string, { bitmap, targets }: MigratePlanOptions): void {
  if (typeof bitmap !== 'string' || bitmap === '') {
    throw new TypeError(`${owner}: bitmap is a name, or a generation`);
  }
  const paths = Object.values(targets);
  if (paths.length > 0 && paths.every((path) => typeof path === 'string' && path !== '')) return;
  throw new TypeError(`${owner}: targets has a path for at least one disk: { vda: "/over.qcow2" }`);
}
