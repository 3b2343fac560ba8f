/** A backup into a repository goes on where its process has died, as long as the view still stands. */
import fs from 'node:fs';
import { join } from 'node:path';
import { storeFile } from '../files/index.js';
import type { BackupOptions as PointOptions, Repository } from '../repository/index.js';
import { generationOf } from './generation.js';
import type { LibvirtMachine } from './libvirt/index.js';
import type { Machine } from './machine.js';
import type { BackupOptions, BackupSession, FoundBackup } from './session/index.js';

/** A backup of a machine, as far as it must be the same to be gone on with. */
interface Subject {
  readonly repository: Repository;
  readonly machine: Machine | LibvirtMachine;
  readonly base: string | undefined;
  readonly options: Pick<BackupOptions, 'disks' | 'freeze' | 'view' | 'fetch'> &
    Pick<PointOptions, 'machine' | 'full' | 'compress' | 'longestChain'>;
}

/** A session that is gone on with. */
interface Resumed {
  readonly session: BackupSession;
  /** That its point is going to have. */
  readonly id: string;
  /** Where it has noted what is stored. */
  readonly notes: string;
}

/** What is noted of a backup beside what its disks have stored. */
const FILE = 'backup.json';

export class GoingOn {
  readonly warnings: string[] = [];
  readonly #subject: Subject;
  readonly #found: FoundBackup;

  /** Looks for what an earlier run has left. What cannot be gone on with is for `recover` to take away. */
  static async look(subject: Subject, signal: AbortSignal): Promise<GoingOn> {
    const { machine, base, options } = subject;
    const { disks, freeze, view } = options;
    if (!canBeNoted(options)) return new GoingOn(subject, {});
    const isNotedIn = (notes: string) => textIn(notes) === noteOf(subject);
    const found = await machine.interrupted({ base, disks, freeze, view, signal, isNotedIn });
    return new GoingOn(subject, found);
  }

  private constructor(subject: Subject, found: FoundBackup) {
    this.#subject = subject;
    this.#found = found;
    if (found.why !== undefined) this.#noteAnew(found.why);
  }

  /** The session that is gone on with, if there is one whose view is sound. */
  async open(): Promise<Resumed | undefined> {
    const { interrupted } = this.#found;
    if (interrupted === undefined) return undefined;
    const { repository, machine, base } = this.#subject;
    const { notes, generation } = interrupted;
    let session: BackupSession;
    try {
      session = await interrupted.open();
    } catch (error) {
      this.#noteAnew((error as Error).message);
      await machine.recover({ generation: base ?? null });
      return undefined;
    }
    this.warnings.push(
      `the disks are as they were at ${session.point.time}: a backup was interrupted then, and was gone on with, as its view still stood`,
    );
    return { session, id: generation.slice(generationOf(repository.id, '').length), notes };
  }

  /**
   * Makes it possible that another process goes on with a session.
   *
   * @returns where it may note what it stores; undefined where nobody can go on with it.
   */
  async begin({ notes }: BackupSession): Promise<string | undefined> {
    const { options } = this.#subject;
    if (notes === undefined || !canBeNoted(options)) return undefined;
    fs.mkdirSync(notes, { mode: 0o700 });
    await storeFile('note the backup', join(notes, FILE), noteOf(this.#subject));
    return notes;
  }

  /** Takes away what could be gone on with, unless it was opened: the backup ends before it has begun. */
  async giveUp(): Promise<void> {
    const { interrupted } = this.#found;
    if (interrupted === undefined) return;
    interrupted.leave();
    const { machine, base } = this.#subject;
    await machine.recover({ generation: base ?? null });
  }

  /** To be called in the end, whatever has happened. */
  leave(): void {
    this.#found.interrupted?.leave();
  }

  #noteAnew(why: string): void {
    this.warnings.push(`a backup that was interrupted could not be gone on with: ${why}`);
  }
}

/** What is compressed has no place before it is written, and what QEMU pushes ends with the process. */
function canBeNoted({ compress, fetch }: Subject['options']): boolean {
  return compress === undefined && fetch !== 'push';
}

/** Equal texts are of the same backup. */
function noteOf({ repository, options }: Subject): string {
  const { machine, full = false, longestChain } = options;
  return `${JSON.stringify({ repository: repository.id, machine, full, longestChain })}\n`;
}

function textIn(notes: string): string | undefined {
  try {
    return fs.readFileSync(join(notes, FILE), 'utf8');
  } catch {
    return undefined;
  }
}
