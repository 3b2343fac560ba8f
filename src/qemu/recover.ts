/** Takes away what sessions have left in a machine whose processes have died, or whose own cleaning has failed. */
import { resolve } from 'node:path';
import { GuestAgent, type Monitor, type QmpAddress } from '../qmp/index.js';
import { cancelMigration, restoreCapabilities, thawFor } from './guard/index.js';
import {
  type RecoverOptions,
  type RecoverReport,
  Recovery,
  type Target,
  THAW_MS,
} from './session/index.js';
import {
  countsFrom,
  isRound,
  type Journal,
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
  const recovery = new MachineRecovery(target, generation, await whatIsIn(target.monitor));
  const known = await recovery.takeAll(target.folder);
  const { prefixes } = await whatIsIn(target.monitor);
  const unknown = prefixes.filter((prefix) => !known.has(prefix));
  if (!takeUnknown) {
    recovery.unknown.push(...unknown);
    return recovery.report();
  }
  for (const prefix of unknown) {
    await new Teardown(target.monitor, new SessionNames(prefix)).run();
    recovery.recovered.push(prefix);
  }
  return recovery.report();
}

/**
 * Takes away what work has left that no generation depends on, such as a populate or a migration, so that the manifest need
 * not be known. Backups are left to {@link recoverTarget}.
 *
 * @returns warnings
 */
export async function recoverWithoutGeneration(target: Target): Promise<readonly string[]> {
  const recovery = new MachineRecovery(target, null, await whatIsIn(target.monitor));
  for (const { folder } of SessionFolder.left(target.folder)) {
    if (folder === undefined) continue;
    if (isOfBackup(folder)) folder.leave();
    else await recovery.take(folder);
  }
  return recovery.warnings;
}

/** A journal that cannot be read is for {@link recoverTarget} to tell of. */
function isOfBackup({ path }: SessionFolder): boolean {
  try {
    const generation = readJournal(path)?.generation;
    return generation !== undefined && !isRound(generation);
  } catch {
    return true;
  }
}

const MOVED =
  'this machine has been moved away by a migration: end this QEMU (quit), and never let it go on (cont) while the machine runs elsewhere';

class MachineRecovery extends Recovery {
  readonly #target: Target;
  readonly #there: Contents;

  constructor(target: Target, generation: string | null, there: Contents) {
    super(generation);
    this.#target = target;
    this.#there = there;
  }

  /** A machine may be reached by several monitors, and by several paths to one of them. */
  protected concerns({ monitor, prefix, generation }: Journal): boolean {
    if (isSameAddress(monitor, this.#target.address)) return true;
    const { prefixes, bitmaps } = this.#there;
    if (prefixes.includes(prefix)) return true;
    return generation !== undefined && bitmaps.some((name) => countsFrom(generation, name));
  }

  protected async undo(journal: Journal, obsolete: string | undefined): Promise<boolean> {
    const { monitor } = this.#target;
    const teardown = new Teardown(monitor, new SessionNames(journal.prefix));
    const { frozen, nbd, moves } = journal;
    if (moves !== undefined) {
      if (await cancelMigration(monitor)) return this.#noteMoved();
      await restoreCapabilities(monitor, moves);
    }
    const isThawed = await this.hasThawed(async () => {
      if (frozen === undefined) return;
      await using agent = await GuestAgent.connect(frozen as QmpAddress, { monitor });
      await thawFor(agent, THAW_MS);
    });
    await teardown.run();
    const warning = nbd.isOurs && (await teardown.stopServer(nbd.server));
    if (warning) this.warnings.push(warning);
    if (obsolete !== undefined) {
      this.warnings.push(...(await teardown.removeBitmaps(obsolete)));
      this.noteRemoved(obsolete);
    }
    return isThawed && !warning;
  }

  /** Its images are the other side's now: nothing of it is to be touched. */
  #noteMoved(): true {
    this.warnings.push(MOVED);
    return true;
  }
}

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
