/** Takes away what sessions have left in a domain whose processes have died, or whose own cleaning has failed. */
import { LacunaError } from '../../errors/index.js';
import { thawFor } from '../guard/index.js';
import type { RecoverOptions, RecoverReport } from '../session/index.js';
import { type Journal, obsoleteOf, readJournal, SessionFolder } from '../state/index.js';
import { VirshAgent } from '../virsh/index.js';
import type { Domain } from './domain.js';
import { DomainHold } from './domain-hold.js';
import { restoreCheckpoint } from './kept-checkpoints.js';
import { sessionAt } from './plan.js';

const THAW_MS = 10_000;

export async function recoverDomain(
  domain: Domain,
  base: string,
  { generation, unknown: takeUnknown = false }: RecoverOptions,
): Promise<RecoverReport> {
  const recovery = new Recovery(domain, base, generation);
  const sessions = SessionFolder.left(base);
  const failures: unknown[] = [];
  for (const { prefix, folder } of sessions) {
    if (folder === undefined) recovery.running.push(prefix);
    // One that cannot be taken away is in nobody's way, and no other stays locked because of it.
    else await recovery.take(folder).catch((error) => failures.push(error));
  }
  if (failures.length > 0) throw failures[0];
  const known = new Set(sessions.map(({ prefix }) => prefix));
  await recovery.takeUnknown(known, takeUnknown);
  if (generation !== null) {
    recovery.warnings.push(...(await restoreCheckpoint(domain, base, generation)));
  }
  return recovery.report();
}

class Recovery {
  readonly running: string[] = [];
  readonly warnings: string[] = [];
  readonly #recovered: string[] = [];
  readonly #removed: string[] = [];
  readonly #unknown: string[] = [];
  readonly #domain: Domain;
  readonly #base: string;
  readonly #generation: string | null;

  constructor(domain: Domain, base: string, generation: string | null) {
    this.#domain = domain;
    this.#base = base;
    this.#generation = generation;
  }

  report(): RecoverReport {
    return {
      recovered: this.#recovered,
      removedGenerations: this.#removed,
      unknown: this.#unknown,
      running: this.running,
      warnings: this.warnings,
    };
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

  /** A backup of ours whose folder was lost. */
  async takeUnknown(known: ReadonlySet<string>, mayEnd: boolean): Promise<void> {
    const socket = await this.#domain.backupSocket();
    const prefix = socket && sessionAt(socket);
    if (!prefix || known.has(prefix)) return;
    if (!mayEnd) {
      this.#unknown.push(prefix);
      return;
    }
    await this.#domain.endBackup(socket);
    this.#recovered.push(prefix);
  }

  /** Whether everything of the session is gone, its folder too. */
  async #takeIn(folder: SessionFolder): Promise<boolean> {
    const journal = readJournal(folder.path);
    if (journal !== undefined) {
      if (journal.libvirt === undefined || !this.#domain.isSame(journal.libvirt)) return false;
      if (!(await this.#undo(journal))) return false;
      this.#recovered.push(journal.prefix);
    }
    folder.remove();
    return true;
  }

  async #undo(journal: Journal): Promise<boolean> {
    const { server } = journal.nbd;
    const hold = new DomainHold(this.#domain, this.#base, 'path' in server ? server.path : '');
    const isThawed = journal.frozen === undefined || (await this.#thaw());
    await hold.end();
    const obsolete = obsoleteOf(journal, this.#generation);
    if (obsolete !== undefined) {
      const isGone = await this.#forget(hold, obsolete);
      if (!isGone) return false;
      this.#removed.push(obsolete);
    }
    return isThawed;
  }

  async #forget(hold: DomainHold, generation: string): Promise<boolean> {
    try {
      this.warnings.push(...(await hold.forget(generation)));
      return true;
    } catch (error) {
      // Checkpoints of a domain at rest stay until it runs again.
      if (!(error instanceof LacunaError) || (await this.#domain.isRunning())) throw error;
      this.warnings.push(error.message);
      return false;
    }
  }

  async #thaw(): Promise<boolean> {
    if (!(await this.#domain.isRunning())) return true;
    try {
      await thawFor(new VirshAgent(this.#domain.address), THAW_MS);
      return true;
    } catch (error) {
      if (!(error instanceof LacunaError)) throw error;
      this.warnings.push(`the guest may be frozen: ${error.message}`);
      return false;
    }
  }
}
