import type { LacunaError } from '../../errors/index.js';
import {
  type Journal,
  newGeneration,
  SessionFolder,
  SessionNames,
  writeJournal,
} from '../state/index.js';
import type { Freezer } from './freezer.js';
import { noteLeft } from './machine-job.js';
import type { BackupOptions } from './options.js';
import type { BackupSession } from './session.js';
import type { SessionDisk } from './session-disk.js';

/** How one kind of machine begins a backup. */
export interface Starter {
  /** Connects the guest agent. Nothing is made yet. */
  freezer(): Promise<Freezer>;
  run(freezer: Freezer): Promise<BackupSession>;
  /** Takes away everything that `run` has made. Never throws: what is left is said in the error. */
  undo(error: LacunaError): Promise<void>;
}

/** Begins a backup. When it fails, everything that was begun is undone before the error is thrown. */
export async function beginSession(starter: Starter): Promise<BackupSession> {
  const freezer = await starter.freezer();
  try {
    return await starter.run(freezer);
  } catch (error) {
    await starter.undo(error as LacunaError);
    throw error;
  } finally {
    await freezer.close();
  }
}

/** What a journal says of one kind of machine. */
type OwnEntries = Pick<Journal, 'monitor' | 'libvirt' | 'nbd' | 'disks'>;

/** The folder and the journal of a session that begins, and the disks that it has opened. */
export class Beginning {
  readonly names = SessionNames.random();
  readonly control = new AbortController();
  readonly disks: SessionDisk[] = [];
  #folder: SessionFolder | undefined;
  #journal: Journal | undefined;

  get folder(): SessionFolder {
    return this.#folder!;
  }

  get journal(): Journal {
    return this.#journal!;
  }

  /** Makes the folder, and a journal that says everything before any of it is there. */
  async open(
    base: string,
    options: BackupOptions,
    own: (folder: SessionFolder) => OwnEntries,
  ): Promise<void> {
    const { mode, generation = newGeneration(), keepBase = false } = options;
    this.#folder = await SessionFolder.create(base, this.names.prefix);
    this.#journal = {
      format: 'lacuna backup session',
      version: 1,
      prefix: this.names.prefix,
      ...own(this.#folder),
      ...(mode !== 'copy' && { generation }),
      ...(options.base !== undefined && { base: options.base }),
      keepsBase: keepBase || mode === 'copy',
      phase: 'begun',
    };
    await this.write({});
  }

  async write(changed: Partial<Journal>): Promise<void> {
    this.#journal = { ...this.journal, ...changed };
    await writeJournal(this.folder.path, this.#journal);
  }

  /** Takes away what was made; what that cannot do is left to the journal, and said in `error`. */
  async undo(error: LacunaError, takeDown: () => Promise<void>): Promise<void> {
    this.control.abort(error);
    await Promise.all(this.disks.map((disk) => disk.close()));
    const folder = this.#folder;
    if (folder === undefined) return;
    try {
      if (this.#journal !== undefined) await takeDown();
    } catch (failure) {
      folder.leave();
      noteLeft(error, failure);
      return;
    }
    // What may be frozen is for recover() to thaw.
    if (this.#journal?.frozen !== undefined) folder.leave();
    else folder.remove();
  }
}
