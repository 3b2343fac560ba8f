import { join } from 'node:path';
import { checkUnread, diskCalled } from '../../copy/view/index.js';
import { LacunaError } from '../../errors/index.js';
import type { SessionPush } from '../push/index.js';
import { type Journal, type SessionFolder, writeJournal } from '../state/index.js';
import type { ViewKind } from '../view/index.js';
import type { PointInTime } from './point.js';
import type { SessionDisk } from './session-disk.js';
import type { SessionHold } from './session-hold.js';

/** What a session leaves behind when it has succeeded. */
export interface FinishReport {
  /** What the manifest keeps. */
  readonly point: PointInTime;
  /** What a person should know although the backup is good: what could not be removed, say. */
  readonly warnings: readonly string[];
}

/** @internal What {@link BackupSession} is made of. */
export interface SessionParts {
  readonly hold: SessionHold;
  readonly folder: SessionFolder;
  readonly journal: Journal;
  readonly view: ViewKind;
  readonly point: PointInTime;
  readonly warnings: readonly string[];
  /** Resolves when what QEMU pushes has arrived; absent where all is read from QEMU. */
  readonly arrival?: Promise<void> | undefined;
  readonly push?: SessionPush | undefined;
  /** Nothing has to be read from QEMU once it has. */
  readonly isAllPushed?: boolean;
}

/**
 * A backup of a running machine: its disks at one point in time, from its start until it has been finished, or given up.
 *
 *     const session = await machine.backup({ base });
 *     for (const disk of session.disks) {
 *       for await (const { offset, length, status, data } of disk.extents()) ...
 *     }
 *     await session.finish(async (point) => writeManifestDurably(point));
 *
 * Old bitmaps go on recording until the manifest is durable; only then they are removed. So whatever dies in between, the
 * generation in the newest manifest says which bitmap the next backup begins from, and nothing is lost.
 */
export class BackupSession implements AsyncDisposable {
  /** The disks. */
  readonly disks: readonly SessionDisk[];
  /** What the manifest keeps. */
  readonly point: PointInTime;
  /** How the point in time is held. */
  readonly view: ViewKind;
  /** How far QEMU's push is, and how fast it may be; undefined where all is read from QEMU. */
  readonly push: SessionPush | undefined;
  /** What a person should know, such as a freeze that failed. */
  readonly warnings: readonly string[];
  readonly #parts: SessionParts;
  readonly #control: AbortController;
  #lost: LacunaError | undefined;
  #viewEnd: Promise<void> | undefined;
  /** Everything was read, and all of it counts. */
  #wasSound = false;
  #isEnded = false;
  /** Resolves when the push has ended, well or not. */
  readonly #arrived: Promise<void>;

  /** @internal */
  constructor(parts: SessionParts, disks: readonly SessionDisk[], control: AbortController) {
    this.disks = disks;
    this.point = parts.point;
    this.view = parts.view;
    this.push = parts.push;
    this.warnings = parts.warnings;
    this.#parts = parts;
    this.#control = control;
    this.#arrived = this.#arrive(parts.arrival);
  }

  /**
   * @internal Where to note what is stored, so that another process can go on where this one dies: it is there as long as the
   * session has something in the machine. Undefined where none can.
   */
  get notes(): string | undefined {
    const { journal, folder } = this.#parts;
    return journal.standing && notesIn(folder);
  }

  /** Fires when the view is lost, with the reason, and when the session is given up. */
  get signal(): AbortSignal {
    return this.#control.signal;
  }

  /** Why the view is lost, as far as is known; undefined while it is sound. */
  get lost(): LacunaError | undefined {
    return this.#lost;
  }

  /**
   * A disk by its name.
   *
   * @throws TypeError where the session has none of that name.
   */
  disk(name: string): SessionDisk {
    return diskCalled(this.disks, name);
  }

  /**
   * Throws unless everything that was read until now was of the point in time.
   *
   * @throws LacunaError ERR_VIEW_LOST, ERR_SCRATCH_FULL
   */
  async check(): Promise<void> {
    if (this.#lost !== undefined) throw this.#lost;
    // The view may have ended since: what QEMU has pushed is here.
    if (this.#wasSound) return;
    await this.#parts.hold.check();
    // It may have been heard of meanwhile.
    if (this.#lost !== undefined) throw this.#lost;
  }

  /**
   * Checks that everything that was read was of the point in time, and ends the view: nothing can be read any more, and the guest
   * writes as before. What is left is to make a manifest durable, and then {@link finish}, which calls this where it was not
   * called.
   *
   * @returns warnings: what could not be taken down yet.
   * @throws TypeError while a disk is being read, or after the end. LacunaError ERR_VIEW_LOST, ERR_SCRATCH_FULL: nothing that was
   *   read counts.
   */
  async accept(): Promise<readonly string[]> {
    this.#checkOpen('accept');
    checkUnread(this.disks);
    await this.#arrived;
    // Once it was sound behind the last read, only the manifest is missing.
    if (!this.#wasSound) await this.check();
    this.#wasSound = true;
    const warnings: string[] = [];
    await this.#endView().catch((error: Error) => warnings.push(error.message));
    await this.#closeDisks();
    return warnings;
  }

  /**
   * Ends a backup whose data has been read and stored. The view is checked after the last read; then it is ended; then
   * `record` must make the point in time durable, as a manifest; then the bitmaps that the backup began from are removed.
   *
   * When the check fails, or `record` does, the session is not ended: call {@link fail}. What could not be removed is in the
   * warnings, and left to `Machine.recover`.
   *
   * @throws TypeError while a disk is being read, or after the end. LacunaError ERR_VIEW_LOST, ERR_SCRATCH_FULL: nothing that was
   *   read counts. What `record` throws.
   */
  async finish(record: (point: PointInTime) => Promise<void> | void): Promise<FinishReport> {
    this.#checkOpen('finish');
    if (typeof record !== 'function') {
      throw new TypeError('finish needs a record: a function that makes the manifest durable');
    }
    const warnings = [...(await this.accept())];
    const kept: string[] = [];
    const note = (error: unknown): string[] => {
      warnings.push((error as Error).message);
      return [];
    };
    await record(this.point);
    this.#isEnded = true;
    const { folder, journal } = this.#parts;
    await writeJournal(folder.path, { ...journal, phase: 'accepted' }).catch(note);
    const { base, keepsBase, generation } = journal;
    if (base !== undefined && generation !== undefined && !keepsBase) {
      kept.push(...(await this.#parts.hold.forget(base).catch(note)));
    }
    // What will not go by itself is nothing to come back for.
    if (warnings.length > 0) folder.leave();
    else folder.remove();
    return { point: this.point, warnings: [...warnings, ...kept] };
  }

  /**
   * Gives the backup up: the view is ended and the new bitmaps are removed. The old ones have marked everything, so the next
   * backup begins from where this one began. Harmless after the end.
   *
   * @throws LacunaError ERR_MACHINE_LEFTOVERS, or what the monitor throws, where something could not be removed:
   *   `Machine.recover` does it later.
   */
  async fail(): Promise<void> {
    if (this.#isEnded) return;
    const { generation } = this.#parts.journal;
    await this.#giveUp(generation === undefined ? [] : [generation]);
  }

  /**
   * Gives the backup up, and removes the old bitmaps too: for when backups of this machine end, or begin anew. The next backup
   * is full.
   *
   * @throws as {@link fail}
   */
  async forget(): Promise<void> {
    this.#checkOpen('forget');
    const { generation, base } = this.#parts.journal;
    await this.#giveUp([generation, base].filter((one) => one !== undefined));
  }

  /** As {@link fail}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.fail();
  }

  /** @internal The view is lost: the guest must not pay for it any longer. */
  lose(failure: LacunaError): void {
    if (this.#lost !== undefined || this.#wasSound || this.#isEnded) return;
    this.#lost = failure;
    this.#control.abort(failure);
    // Told by fail(), which does what is left.
    this.#endView().catch(() => {});
  }

  /** The view is of no use any more once everything has arrived: the guest must not pay for it while that is stored. */
  async #arrive(arrival: Promise<void> | undefined): Promise<void> {
    if (arrival === undefined) return;
    try {
      await arrival;
    } catch (error) {
      this.lose(error as LacunaError);
      return;
    }
    if (this.#isEnded || !this.#parts.isAllPushed) return;
    this.#wasSound = true;
    // What is left of it is told by accept().
    await this.#endView().catch(() => {});
  }

  async #giveUp(generations: readonly string[]): Promise<void> {
    this.#isEnded = true;
    this.#control.abort(new LacunaError('ERR_ABORTED', 'Aborted: the backup was given up'));
    const { folder } = this.#parts;
    try {
      await this.#endView();
      await this.#closeDisks();
      for (const generation of generations) {
        await this.#parts.hold.forget(generation);
      }
    } catch (error) {
      folder.leave();
      throw error;
    }
    folder.remove();
  }

  #endView(): Promise<void> {
    this.#viewEnd ??= this.#takeDown().catch((error) => {
      // Another call tries again.
      this.#viewEnd = undefined;
      throw error;
    });
    return this.#viewEnd;
  }

  async #takeDown(): Promise<void> {
    const { hold } = this.#parts;
    hold.unwatch();
    // Own connections first: a QEMU below 8.0 cannot stop its server while somebody connects.
    await Promise.all(this.disks.map((disk) => disk.disconnect()));
    await hold.end();
  }

  async #closeDisks(): Promise<void> {
    await Promise.all(this.disks.map((disk) => disk.close()));
  }

  #checkOpen(what: string): void {
    if (this.#isEnded) throw new TypeError(`the backup has ended: ${what} comes too late`);
  }
}

/** Where the caller's notes are in the folder of a session. */
export function notesIn({ path }: Pick<SessionFolder, 'path'>): string {
  return join(path, 'notes');
}
