/** Rounds: what is dirty at one point in time is copied from a view of it, while the guest goes on. */
import { LacunaError } from '../../errors/index.js';
import type { Job, JobControl } from '../../job/index.js';
import { type BackupSession, noteLeft, startSession, type Target } from '../session/index.js';
import { bitmapOf, type SessionNames } from '../state/index.js';
import type { MigrateRound } from './options.js';
import type { PlannedMigration } from './plan-migrate.js';
import type { OpenTarget } from './targets.js';

/** What a round has had copied. */
export interface Copied {
  movedBytes: number;
  zeroedBytes: number;
}

export interface RoundsOptions {
  readonly names: SessionNames;
  readonly targets: readonly OpenTarget[];
  readonly scratchBytes?: number | undefined;
}

export class Rounds {
  readonly done: MigrateRound[] = [];
  readonly warnings: string[] = [];
  readonly #machine: Target;
  readonly #options: RoundsOptions;
  #copying: Job<unknown> | undefined;
  #last = 0;
  #plannedBytes = 0;
  #doneBytes = 0;

  constructor(machine: Target, options: RoundsOptions) {
    this.#machine = machine;
    this.#options = options;
  }

  /** The generation that counts from the point in time of the last round. */
  get generation(): string {
    return this.#options.names.round(this.#last);
  }

  counted(): { totalBytes: number; doneBytes: number } {
    const { doneBytes = 0 } = this.#copying?.progress() ?? {};
    return { totalBytes: this.#plannedBytes, doneBytes: this.#doneBytes + doneBytes };
  }

  /** Copies of the bitmaps begin to record; the bitmaps themselves are left as they are until the end, and beyond. */
  async begin(signal: AbortSignal): Promise<void> {
    const actions = this.#plans().flatMap(({ disk, bitmap, granularity }) => {
      const { node } = disk;
      const copy = bitmapOf(this.generation, disk.name);
      const added = { node, name: copy, granularity, persistent: false };
      const bitmaps = [{ node, name: bitmap }];
      return [
        { type: 'block-dirty-bitmap-add', data: added },
        { type: 'block-dirty-bitmap-merge', data: { node, target: copy, bitmaps } },
      ];
    });
    await this.#machine.monitor.execute('transaction', { actions }, { signal });
  }

  /** Dirty bytes, of all disks, that are left for the next round. */
  async left(): Promise<number> {
    const nodes = await this.#machine.monitor.execute('query-named-block-nodes');
    const counts = this.#plans().map(({ disk }) => {
      const name = bitmapOf(this.generation, disk.name);
      const node = nodes.find((one) => one['node-name'] === disk.node);
      const bitmap = node?.['dirty-bitmaps']?.find((one) => one.name === name);
      if (bitmap === undefined) throw gone(disk.name, name);
      return bitmap.count;
    });
    return counts.reduce((sum, count) => sum + count, 0);
  }

  async run(control: JobControl): Promise<MigrateRound> {
    const began = performance.now();
    const session = await startSession(this.#machine, {
      disks: this.#plans().map(({ disk }) => disk.name),
      base: this.generation,
      generation: this.#options.names.round(this.#last + 1),
      freeze: 'off',
      scratchBytes: this.#options.scratchBytes,
      signal: control.ending,
    });
    const copied = await this.#copyAll(session, control);
    this.#last++;
    const durationMs = performance.now() - began;
    const round = { ...copied, leftBytes: await this.left(), durationMs };
    this.done.push(round);
    return round;
  }

  async #copyAll(session: BackupSession, control: JobControl): Promise<Copied> {
    const copied: Copied = { movedBytes: 0, zeroedBytes: 0 };
    try {
      const sizes = await Promise.all(session.disks.map((disk) => disk.totals()));
      for (const { dataBytes, zeroBytes, holeBytes } of sizes) {
        this.#plannedBytes += dataBytes + zeroBytes + holeBytes;
      }
      for (const { planned, device } of this.#options.targets) {
        const disk = session.disk(planned.name);
        if (disk.mode !== 'incremental') throw gone(disk.name, disk.reason);
        const job = disk.copyTo(device, { signal: control.signal });
        await this.#count(control.run(job), job);
        const { movedBytes, zeroedBytes } = await job;
        copied.movedBytes += movedBytes;
        copied.zeroedBytes += zeroedBytes;
      }
      const { warnings } = await session.finish(() => {});
      this.warnings.push(...warnings);
      return copied;
    } catch (error) {
      // Why the view was lost says more than that it was read in vain.
      const why = (session.lost ?? error) as Error;
      await session.fail().catch((left: Error) => {
        noteLeft(why, left);
      });
      throw why;
    }
  }

  async #count(work: Promise<unknown>, job: Job<unknown>): Promise<void> {
    this.#copying = job;
    try {
      await work;
    } finally {
      this.#doneBytes += job.progress().doneBytes;
      this.#copying = undefined;
    }
  }

  #plans(): PlannedMigration[] {
    return this.#options.targets.map(({ planned }) => planned);
  }
}

function gone(disk: string, what: string): LacunaError {
  return new LacunaError(
    'ERR_BITMAP_UNKNOWN',
    `the bitmap of a round of the migration is gone from ${disk} (${what}): somebody has removed it, or has made a snapshot; migrate again`,
    { device: disk, retryable: true },
  );
}
