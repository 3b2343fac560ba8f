/** Moves a running machine to another QEMU by what has changed since a backup. */
import { join, resolve } from 'node:path';
import { LacunaError } from '../../errors/index.js';
import type { Job, JobControl, JobCounts } from '../../job/index.js';
import { type MigrationCapability, Monitor } from '../../qmp/index.js';
import { cancelMigration, restoreCapabilities } from '../guard/index.js';
import { journalOf, machineJob, noteLeft, refuseObstacles, type Target } from '../session/index.js';
import { type Journal, SessionFolder, SessionNames, writeJournal } from '../state/index.js';
import { Teardown } from '../view/index.js';
import { MigrationGuard } from './guard.js';
import { lastRound } from './last-round.js';
import { MemoryMove, throwIfEnded, WAITS } from './memory.js';
import type { MigrateOptions, MigratePhase, MigrateProgress, MigrateReport } from './options.js';
import { type FullPlan, planMigration, shortDisk } from './plan-migrate.js';
import { Rounds } from './rounds.js';
import { takeOver } from './take-over.js';
import { closeTargets, type OpenTarget, openTarget } from './targets.js';

const LEAVE_BYTES = 16 * 1024 * 1024;
/** A guest that has not settled by then will not. */
const MOST_ROUNDS = 30;

const GOES_ON =
  ' (the source goes on with its own disks, and its bitmap has marked everything: to migrate again, start the destination anew)';

const HAS_LEFT =
  ' (the source has handed over all the same, and must not go on: look whether the destination runs, and end the source then)';

/** @param before what is done before anything else */
export function migrateMachine(
  target: Target,
  options: MigrateOptions,
  before: () => Promise<readonly string[]>,
): Job<MigrateReport, MigrateProgress> {
  const { rate, signal } = options;
  const work = new Migration(target, options);
  return machineJob({ what: 'a migration', rate, signal, before, work });
}

class Migration {
  readonly #target: Target;
  readonly #options: MigrateOptions;
  readonly #names = SessionNames.random();
  readonly #targets: OpenTarget[] = [];
  readonly #teardown: Teardown;
  #phase: MigratePhase = 'rounds';
  #rounds: Rounds | undefined;
  #folder: SessionFolder | undefined;
  #journal: Journal | undefined;
  #guard: MigrationGuard | undefined;
  /** The capabilities that the destination had, as far as they are changed. */
  #ofDestination: readonly MigrationCapability[] = [];
  #memory = { totalBytes: 0, doneBytes: 0, sentBytes: 0 };

  constructor(target: Target, options: MigrateOptions) {
    this.#target = target;
    this.#options = options;
    this.#teardown = new Teardown(target.monitor, this.#names);
  }

  counted(): JobCounts<MigrateProgress> {
    const { totalBytes = 0, doneBytes = 0 } = this.#rounds?.counted() ?? {};
    return {
      phase: this.#phase,
      round: this.#rounds?.done.length ?? 0,
      totalBytes: totalBytes + this.#memory.totalBytes,
      doneBytes: doneBytes + this.#memory.doneBytes,
    };
  }

  async run(control: JobControl): Promise<MigrateReport> {
    const { destination: address, signal } = this.#options;
    await using destination = await Monitor.connect(address, { signal });
    const plan = await planMigration(this.#target, destination, this.#options);
    refuseObstacles(plan, this.#target.monitor.name);
    try {
      await this.#prepare(plan, control);
      await this.#settle(control);
      return await this.#move(plan, destination, control);
    } catch (error) {
      await this.#giveUp(error as Error);
      throw error;
    }
  }

  /** The journal says whose names they are before any of it is there. */
  async #prepare(plan: FullPlan, control: JobControl): Promise<void> {
    const folder = await SessionFolder.create(this.#target.folder, this.#names.prefix);
    this.#folder = folder;
    const disks = plan.disks.map(({ disk }) => disk);
    await this.#write(journalOf(this.#target, this.#names, folder, disks));
    const names = plan.disks.map(({ name }) => name);
    for (const disk of plan.disks) {
      this.#targets.push(await openTarget(disk, names, control.ending));
    }
    const { scratchBytes } = this.#options;
    this.#rounds = new Rounds(this.#target, {
      ...{ names: this.#names, targets: this.#targets, scratchBytes },
    });
    await this.#rounds.begin(control.ending);
  }

  /** Rounds, each from a point in time later than the last, until little is left. */
  async #settle(control: JobControl): Promise<void> {
    const { leaveBytes = LEAVE_BYTES } = this.#options;
    const rounds = this.#rounds!;
    let best = Number.POSITIVE_INFINITY;
    let isLonger = false;
    for (let left = await rounds.left(); left > leaveBytes || rounds.done.length === 0; ) {
      await control.next();
      ({ leftBytes: left } = await rounds.run(control));
      // One that is no shorter than those before it may have been bad luck; two are not.
      if (left > leaveBytes && ((isLonger && left >= best) || rounds.done.length >= MOST_ROUNDS)) {
        throw unsettled(this.#target.monitor.name, left, rounds.done.length);
      }
      isLonger = left >= best;
      best = Math.min(best, left);
    }
  }

  async #move(plan: FullPlan, destination: Monitor, control: JobControl): Promise<MigrateReport> {
    const { monitor } = this.#target;
    using memory = new MemoryMove(monitor, destination, plan.isRunning);
    await this.#begin(plan, memory, control);
    await this.#untilItWaits(memory, control);
    const stoppedAt = memory.stoppedAt ?? performance.now();
    const isRunning = await memory.isRunning();
    await this.#guard!.tell(isRunning);
    this.#phase = 'last';
    await this.#copyLast(control.ending);
    control.throwIfEnding();
    this.#phase = 'switch';
    await this.#switch(plan, memory, { destination, mustRun: isRunning });
    const pauseMs = (memory.resumedAt ?? performance.now()) - stoppedAt;
    this.#phase = 'done';
    const warnings = [
      ...(await this.#settleDestination(destination)),
      ...(await this.#letGo(plan)),
    ];
    return {
      rounds: this.#rounds!.done,
      memoryBytes: this.#memory.sentBytes,
      ...(isRunning && { pauseMs }),
      isRunning,
      disks: plan.disks.map(shortDisk),
      warnings: [...this.#rounds!.warnings, ...warnings],
    };
  }

  async #begin(plan: FullPlan, memory: MemoryMove, control: JobControl): Promise<void> {
    const { path: folder } = this.#folder!;
    const { destination, stream = `unix:${join(folder, 'ram.sock')}` } = this.#options;
    this.#phase = 'memory';
    const changed = await memory.changedCapabilities();
    this.#guard = await MigrationGuard.start({
      ...{ source: this.#target.address, destination, mustRun: plan.isRunning, folder },
      disks: plan.disks.map(({ target, format }) => ({ target: resolve(target), format })),
      capabilities: changed.destination,
    });
    await this.#write({ ...this.#journal!, moves: changed.source });
    this.#ofDestination = changed.destination;
    await memory.setCapabilities();
    control.throwIfEnding();
    await memory.look();
    await memory.begin(stream, control.ending);
  }

  /** Goes on with rounds while memory moves, so that what is left for the end stays little. */
  async #untilItWaits(memory: MemoryMove, control: JobControl): Promise<void> {
    const { leaveBytes = LEAVE_BYTES } = this.#options;
    for (;;) {
      await memory.look();
      const info = await memory.status();
      const { transferred = 0, remaining = 0, total = 0 } = info.ram ?? {};
      this.#memory = {
        totalBytes: total,
        doneBytes: Math.max(total - remaining, 0),
        sentBytes: transferred,
      };
      control.throwIfEnding();
      throwIfEnded(this.#target.monitor.name, info);
      if (info.status === WAITS) return;
      if ((await this.#rounds!.left()) > leaveBytes) await this.#rounds!.run(control);
      else await memory.heard();
    }
  }

  async #switch(
    { disks }: FullPlan,
    memory: MemoryMove,
    { destination, mustRun }: { destination: Monitor; mustRun: boolean },
  ): Promise<void> {
    const { monitor: source } = this.#target;
    try {
      await memory.handOver();
    } catch (error) {
      // A source that is gone may have handed over before: the destination knows.
      if (source.isConnected || !memory.wasTold) throw error;
    }
    await takeOver({ source, destination, disks, mustRun });
  }

  /** What the user moves from there next must find it as it was. */
  async #settleDestination(destination: Monitor): Promise<string[]> {
    try {
      await restoreCapabilities(destination, this.#ofDestination);
      return [];
    } catch (error) {
      const names = this.#ofDestination.map(({ capability }) => capability).join(', ');
      return [
        `the destination keeps the migration capabilities ${names}: ${(error as Error).message}`,
      ];
    }
  }

  async #copyLast(signal: AbortSignal): Promise<void> {
    const rounds = this.#rounds!;
    const began = performance.now();
    const targets = this.#targets.splice(0);
    try {
      const copied = await lastRound(this.#target.monitor, {
        ...{ names: this.#names, nbd: this.#journal!.nbd, generation: rounds.generation },
        ...{ targets, signal },
      });
      rounds.done.push({ ...copied, leftBytes: 0, durationMs: performance.now() - began });
    } catch (error) {
      await closeTargets(targets).catch(() => {});
      throw error;
    }
  }

  /** The machine runs elsewhere: the source must never go on. */
  async #letGo({ disks }: FullPlan): Promise<string[]> {
    const { monitor } = this.#target;
    const warnings = disks.flatMap(({ carriesBitmap, name, bitmap }) =>
      carriesBitmap
        ? []
        : [`the image of ${name} cannot keep the bitmap "${bitmap}": its next backup is full`],
    );
    if (!monitor.isConnected) {
      warnings.push(
        'the source cannot be asked any more: if it is still there, end it (quit), and never let it go on (cont)',
      );
    }
    try {
      await monitor.execute('quit');
    } catch (error) {
      // It may have ended before it could answer.
      if (monitor.isConnected) {
        warnings.push(`the source does not end, and must not go on: ${(error as Error).message}`);
      }
    }
    this.#guard?.close();
    try {
      this.#folder!.remove();
    } catch (error) {
      // The machine has moved all the same.
      this.#folder!.leave();
      warnings.push(`${this.#folder!.path} is left: ${(error as Error).message}`);
    }
    return warnings;
  }

  /** The source goes on, as if nothing had been begun; what cannot be taken away is left to the journal, and said. */
  async #giveUp(error: Error): Promise<void> {
    const folder = this.#folder;
    if (folder === undefined) return;
    if ((error as LacunaError).code === 'ERR_MIGRATION_UNDECIDED') {
      // A person decides: this process and its guard touch neither side, and the journal is there for a source that goes on.
      this.#guard?.close();
      folder.leave();
      return;
    }
    try {
      await this.#takeDown(error);
      folder.remove();
    } catch (failure) {
      folder.leave();
      noteLeft(error, failure);
    } finally {
      // They are of no use, so that they cannot be made durable (where they are full, say) is no news.
      await closeTargets(this.#targets).catch(() => {});
    }
  }

  async #takeDown(error: Error): Promise<void> {
    const { monitor } = this.#target;
    const { moves, nbd } = this.#journal!;
    if (!monitor.isConnected) await monitor.reconnect();
    if (moves !== undefined) {
      const hasLeft = await cancelMigration(monitor);
      this.#guard?.close();
      if (hasLeft) {
        // That one says who runs.
        if ((error as LacunaError).code !== 'ERR_MIGRATION_FAILED') error.message += HAS_LEFT;
        return;
      }
      await restoreCapabilities(monitor, moves);
      error.message += GOES_ON;
    }
    await this.#teardown.run();
    await this.#teardown.endServer(nbd);
  }

  async #write(journal: Journal): Promise<void> {
    this.#journal = journal;
    await writeJournal(this.#folder!.path, journal);
  }
}

function unsettled(device: string, leftBytes: number, rounds: number): LacunaError {
  return new LacunaError(
    'ERR_MIGRATION_FAILED',
    `${device}: the guest writes as fast as it is copied: ${leftBytes} bytes are left after ${rounds} rounds. Migrate when it writes less, or let more be left for the pause (leaveBytes)`,
    { device, retryable: true },
  );
}
