/** Takes away what sessions have left in a domain whose processes have died, or whose own cleaning has failed. */
import { LacunaError } from '../../errors/index.js';
import { thawFor } from '../guard/index.js';
import { type RecoverOptions, type RecoverReport, Recovery, THAW_MS } from '../session/index.js';
import type { Journal } from '../state/index.js';
import { VirshAgent } from '../virsh/index.js';
import type { Domain } from './domain.js';
import { DomainHold } from './domain-hold.js';
import { restoreCheckpoint } from './kept-checkpoints.js';
import { sessionAt } from './plan.js';

export async function recoverDomain(
  domain: Domain,
  base: string,
  { generation, unknown: takeUnknown = false }: RecoverOptions,
): Promise<RecoverReport> {
  const recovery = new DomainRecovery(domain, base, generation);
  const known = await recovery.takeAll(base);
  await recovery.takeUnknown(known, takeUnknown);
  if (generation !== null) {
    recovery.warnings.push(...(await restoreCheckpoint(domain, base, generation)));
  }
  return recovery.report();
}

class DomainRecovery extends Recovery {
  readonly #domain: Domain;
  readonly #base: string;

  constructor(domain: Domain, base: string, generation: string | null) {
    super(generation);
    this.#domain = domain;
    this.#base = base;
  }

  /** A backup of ours whose folder was lost. */
  async takeUnknown(known: ReadonlySet<string>, mayEnd: boolean): Promise<void> {
    const socket = await this.#domain.backupSocket();
    const prefix = socket && sessionAt(socket);
    if (!prefix || known.has(prefix)) return;
    if (!mayEnd) {
      this.unknown.push(prefix);
      return;
    }
    await this.#domain.endBackup(socket);
    this.recovered.push(prefix);
  }

  protected concerns({ libvirt }: Journal): boolean {
    return libvirt !== undefined && this.#domain.isSame(libvirt);
  }

  protected async undo(journal: Journal, obsolete: string | undefined): Promise<boolean> {
    const { server } = journal.nbd;
    const hold = new DomainHold(this.#domain, this.#base, 'path' in server ? server.path : '');
    const mayBeFrozen = journal.frozen !== undefined && (await this.#domain.isRunning());
    const isThawed = await this.hasThawed(async () => {
      if (mayBeFrozen) await thawFor(new VirshAgent(this.#domain.address), THAW_MS);
    });
    await hold.end();
    if (obsolete !== undefined) {
      const isGone = await this.#forget(hold, obsolete);
      if (!isGone) return false;
      this.noteRemoved(obsolete);
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
}
