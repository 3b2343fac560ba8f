/** Takes away what sessions have left in a machine whose processes have died, or whose own cleaning has failed. */
import { resolve } from 'node:path';
import { LacunaError } from '../errors/index.js';
import { GuestAgent, type Monitor, type QmpAddress } from '../qmp/index.js';
import { thawFor } from './guard/index.js';
import type { RecoverOptions, RecoverReport, Target } from './session/index.js';
import {
  countsFrom,
  type Journal,
  obsoleteOf,
  prefixOf,
  prefixOfRecording,
  readJournal,
  SessionFolder,
  SessionNames,
} from './state/index.js';
import { Teardown } from './view/index.js';

export async function recoverTarget(
  target: Target,
  { generation, unknown: takeUnknown = false }: RecoverOptions,
): Promise<RecoverReport> {
  const recovery = new Recovery(target, generation, await whatIsIn(target.monitor));
  const sessions = SessionFolder.left(target.folder);
  const failures: unknown[] = [];
  for (const { prefix, folder } of sessions) {
    if (folder === undefined) recovery.running.push(prefix);
    // One that cannot be taken away is in nobody's way, and no other stays locked because of it.
    else await recovery.take(folder).catch((error) => failures.push(error));
  }
  if (failures.length > 0) throw failures[0];
  const known = new Set(sessions.map(({ prefix }) => prefix));
  const { prefixes } = await whatIsIn(target.monitor);
  const unknown = prefixes.filter((prefix) => !known.has(prefix));
  if (!takeUnknown) return recovery.report(unknown);
  for (const prefix of unknown) {
    await new Teardown(target.monitor, new SessionNames(prefix)).run();
    recovery.recovered.push(prefix);
  }
  return recovery.report([]);
}

/**
 * Takes away what work has left that no generation depends on, such as a populate, so that the manifest need not be known. Backups
 * are left to {@link recoverTarget}.
 *
 * @returns warnings
 */
export async function recoverWithoutGeneration(target: Target): Promise<readonly string[]> {
  const recovery = new Recovery(target, null, await whatIsIn(target.monitor));
  for (const { folder } of SessionFolder.left(target.folder)) {
    if (folder === undefined) continue;
    if (isOfBackup(folder)) folder.leave();
    else await recovery.take(folder);
  }
  return recovery.report([]).warnings;
}

/** A journal that cannot be read is for {@link recoverTarget} to tell of. */
function isOfBackup({ path }: SessionFolder): boolean {
  try {
    return readJournal(path)?.generation !== undefined;
  } catch {
    return true;
  }
}

class Recovery {
  readonly running: string[] = [];
  readonly recovered: string[] = [];
  readonly #removed: string[] = [];
  readonly #warnings: string[] = [];
  readonly #target: Target;
  readonly #generation: string | null;
  readonly #there: Contents;

  constructor(target: Target, generation: string | null, there: Contents) {
    this.#target = target;
    this.#generation = generation;
    this.#there = there;
  }

  report(unknown: readonly string[]): RecoverReport {
    return {
      recovered: this.recovered,
      removedGenerations: this.#removed,
      unknown,
      running: this.running,
      warnings: this.#warnings,
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

  /** Whether everything of the session is gone, its folder too. */
  async #takeIn(folder: SessionFolder): Promise<boolean> {
    const journal = readJournal(folder.path);
    if (journal !== undefined) {
      if (!this.#concerns(journal)) return false;
      const isUndone = await this.#undo(journal);
      if (!isUndone) return false;
      this.recovered.push(journal.prefix);
    }
    folder.remove();
    return true;
  }

  /** A machine may be reached by several monitors, and by several paths to one of them. */
  #concerns({ monitor, prefix, generation }: Journal): boolean {
    if (isSameAddress(monitor, this.#target.address)) return true;
    const { prefixes, bitmaps } = this.#there;
    if (prefixes.includes(prefix)) return true;
    return generation !== undefined && bitmaps.some((name) => countsFrom(generation, name));
  }

  async #undo(journal: Journal): Promise<boolean> {
    const teardown = new Teardown(this.#target.monitor, new SessionNames(journal.prefix));
    const isThawed =
      journal.frozen === undefined || (await this.#thaw(journal.frozen as QmpAddress));
    await teardown.run();
    const warning = journal.nbd.isOurs && (await teardown.stopServer(journal.nbd.server));
    if (warning) this.#warnings.push(warning);
    const obsolete = obsoleteOf(journal, this.#generation);
    if (obsolete !== undefined) {
      this.#warnings.push(...(await teardown.removeBitmaps(obsolete)));
      this.#removed.push(obsolete);
    }
    return isThawed && !warning;
  }

  async #thaw(address: QmpAddress): Promise<boolean> {
    try {
      await using agent = await GuestAgent.connect(address, { monitor: this.#target.monitor });
      await thawFor(agent, THAW_MS);
      return true;
    } catch (error) {
      if (!(error instanceof LacunaError)) throw error;
      this.#warnings.push(`the guest may be frozen: ${error.message}`);
      return false;
    }
  }
}

const THAW_MS = 10_000;

/** What sessions have in a machine. */
interface Contents {
  /** Those that have something else than bitmaps there. */
  readonly prefixes: readonly string[];
  readonly bitmaps: readonly string[];
}

async function whatIsIn(monitor: Monitor): Promise<Contents> {
  const [exports, jobs, nodes] = await Promise.all([
    monitor.execute('query-block-exports'),
    monitor.execute('query-jobs'),
    monitor.execute('query-named-block-nodes'),
  ]);
  const names = [
    ...exports.map(({ id }) => id),
    ...jobs.map(({ id }) => id),
    ...nodes.map((node) => node['node-name']),
  ];
  const bitmaps = nodes.flatMap((node) =>
    (node['dirty-bitmaps'] ?? []).flatMap(({ name = [] }) => name),
  );
  const prefixes = [...names.map(prefixOf), ...bitmaps.map(prefixOfRecording)];
  return { prefixes: [...new Set(prefixes.flatMap((prefix) => prefix ?? []))], bitmaps };
}

function isSameAddress(a: QmpAddress | undefined, b: QmpAddress): boolean {
  if (a === undefined) return false;
  if ('path' in a) return 'path' in b && resolve(a.path) === resolve(b.path);
  return 'port' in b && a.port === b.port;
}
