import { LacunaError } from '../../errors/index.js';
import { type Journal, obsoleteOf, readJournal, SessionFolder } from '../state/index.js';
import type { RecoverReport } from './recover-options.js';

/** A frozen guest gets so much time to thaw. */
export const THAW_MS = 10_000;

/**
 * Takes away what sessions have left whose processes have died, or whose own cleaning has failed. How that is done depends on
 * the kind of machine.
 */
export abstract class Recovery {
  readonly recovered: string[] = [];
  readonly unknown: string[] = [];
  readonly warnings: string[] = [];
  readonly #running: string[] = [];
  readonly #removed: string[] = [];
  readonly #generation: string | null;

  /** @param generation that of the newest manifest; null where no backup counts */
  constructor(generation: string | null) {
    this.#generation = generation;
  }

  /** Whether a session was one of this machine. */
  protected abstract concerns(journal: Journal): boolean;

  /**
   * Thaws the guest where it may be frozen, ends the view, and removes the bitmaps of the generation `obsolete`, if any.
   *
   * @returns whether nothing is left; else `warnings` says what is
   */
  protected abstract undo(journal: Journal, obsolete: string | undefined): Promise<boolean>;

  report(): RecoverReport {
    return {
      recovered: this.recovered,
      removedGenerations: this.#removed,
      unknown: this.unknown,
      running: this.#running,
      warnings: this.warnings,
    };
  }

  /**
   * Takes away all sessions in a folder that are not alive.
   *
   * @returns the prefixes of those that are or were there
   * @throws the first failure, once all others have been taken away
   */
  async takeAll(base: string): Promise<ReadonlySet<string>> {
    const sessions = SessionFolder.left(base);
    const failures: unknown[] = [];
    for (const { prefix, folder } of sessions) {
      if (folder === undefined) this.#running.push(prefix);
      // One that cannot be taken away does not keep the others from it.
      else await this.take(folder).catch((error) => failures.push(error));
    }
    if (failures.length > 0) throw failures[0];
    return new Set(sessions.map(({ prefix }) => prefix));
  }

  async take(folder: SessionFolder): Promise<void> {
    let isDone = false;
    try {
      isDone = await this.#takeIn(folder);
    } finally {
      // What is left of it is for the next time.
      if (!isDone) folder.leave();
    }
  }

  /** Whether everything of the session is gone, its folder too. */
  async #takeIn(folder: SessionFolder): Promise<boolean> {
    const journal = readJournal(folder.path);
    if (journal !== undefined) {
      if (!this.concerns(journal)) return false;
      const obsolete = obsoleteOf(journal, this.#generation);
      if (!(await this.undo(journal, obsolete))) return false;
      this.recovered.push(journal.prefix);
    }
    folder.remove();
    return true;
  }

  /** To be called when the bitmaps of a generation are gone. */
  protected noteRemoved(generation: string): void {
    this.#removed.push(generation);
  }

  /** Whether the guest has thawed; else there is a warning. */
  protected async hasThawed(thaw: () => Promise<unknown>): Promise<boolean> {
    try {
      await thaw();
      return true;
    } catch (error) {
      if (!(error instanceof LacunaError)) throw error;
      this.warnings.push(`the guest may be frozen: ${error.message}`);
      return false;
    }
  }
}
