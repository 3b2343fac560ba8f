/** Backups whose processes have died, and whose views still stand: another process can go on reading them. */
import { throwIfAborted } from '../../errors/index.js';
import type { ExportInfo, JobInfo, NodeInfo } from '../../qmp/index.js';
import { type MachineDisk, takeInventory } from '../inspect/index.js';
import {
  bitmapOf,
  type Journal,
  readJournal,
  SessionFolder,
  SessionNames,
  type StandingView,
} from '../state/index.js';
import { isSound } from '../view/index.js';
import type { BackupOptions } from './options.js';
import { type BackupPlan, checkFilters } from './plan-backup.js';
import { type PointInTime, pointOf } from './point.js';
import { QemuHold } from './qemu-hold.js';
import { BackupSession, notesIn } from './session.js';
import { SessionDisk, type SessionLink } from './session-disk.js';
import type { Target } from './target.js';
import { ViewWatch } from './view-watch.js';

/** The backup that would be begun otherwise. */
export interface WantedBackup
  extends Pick<BackupOptions, 'base' | 'disks' | 'freeze' | 'view' | 'signal'> {
  /** Whether the notes of a session are of this backup. */
  isNotedIn(notes: string): boolean;
}

/** What was found of an earlier run of a backup. */
export interface FoundBackup {
  /** One that can be gone on with; {@link InterruptedBackup.leave} must be called in the end. */
  readonly interrupted?: InterruptedBackup | undefined;
  /** Why there is one that cannot, for people. */
  readonly why?: string | undefined;
}

/** Looks for a backup to go on with. Nothing is changed, and all others are left to be taken away. */
export async function findInterrupted(target: Target, wanted: WantedBackup): Promise<FoundBackup> {
  const folders = SessionFolder.left(target.folder).flatMap(({ folder }) => folder ?? []);
  let held: SessionFolder | undefined;
  try {
    let why: string | undefined;
    for (const folder of folders) {
      const journal = ownJournal(folder, wanted);
      if (journal === undefined) continue;
      const looked = await lookAt(target, journal, wanted);
      if (typeof looked === 'string') why = looked;
      else if (looked !== undefined) {
        held = folder;
        return {
          interrupted: new InterruptedBackup({ target, wanted, folder, journal, ...looked }),
        };
      }
    }
    return { why };
  } finally {
    for (const folder of folders) if (folder !== held) folder.leave();
  }
}

interface Parts extends Looked {
  readonly target: Target;
  readonly wanted: WantedBackup;
  readonly folder: SessionFolder;
  readonly journal: Journal;
}

/** A backup whose process has died. Nobody else can take it away as long as it is held here. */
class InterruptedBackup {
  readonly #parts: Parts;
  #isHeld = true;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** Where its notes are. */
  get notes(): string {
    return notesIn(this.#parts.folder);
  }

  get generation(): string {
    return this.#parts.journal.generation!;
  }

  /**
   * Goes on with it: its disks can be read again, as they were at its point in time.
   *
   * @throws LacunaError where the view is not sound any more, or cannot be read. Then it is left to be taken away.
   */
  async open(): Promise<BackupSession> {
    const { target, folder, journal, plan, standing } = this.#parts;
    const names = new SessionNames(journal.prefix);
    const control = new AbortController();
    let session: BackupSession | undefined;
    let lost: Error | undefined;
    const watch = new ViewWatch(target.monitor, names, plan.length, (failure) => {
      lost ??= failure;
      session?.lose(failure);
    });
    const check = () => {
      if (lost !== undefined) throw lost;
    };
    const disks: SessionDisk[] = [];
    try {
      watch.start();
      await this.#openDisks(disks, { signal: control.signal, check });
      // Behind all else: what has happened while nobody listened, and what is heard from now on, is known.
      await watch.catchUp();
      check();
    } catch (error) {
      watch.stop();
      await Promise.all(disks.map((disk) => disk.close()));
      this.leave();
      throw error;
    }
    const hold = new QemuHold(target.monitor, names, { watch, nbd: journal.nbd });
    const point = this.#point();
    const { kind: view, warnings } = standing;
    const parts = { hold, folder, journal, view, point, warnings };
    session = new BackupSession(parts, disks, control);
    this.#isHeld = false;
    return session;
  }

  /** Adds each to `disks` when it is open. */
  async #openDisks(disks: SessionDisk[], link: SessionLink): Promise<void> {
    const { wanted, journal, plan, standing } = this.#parts;
    const names = new SessionNames(journal.prefix);
    for (const [index, planned] of plan.entries()) {
      throwIfAborted(wanted.signal);
      const exported = {
        ...{ server: journal.nbd.server, name: names.export(index) },
        dirty: planned.mode === 'incremental' ? names.dirty : undefined,
        canRelease: standing.kind === 'access',
      };
      disks.push(await SessionDisk.open(planned, exported, link));
    }
  }

  #point(): PointInTime {
    const { journal, plan, standing } = this.#parts;
    return pointOf(journal, plan, standing.time, { hasFrozen: standing.wasFrozen });
  }

  /** Leaves it to be taken away by others, unless it was opened. */
  leave(): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this.#parts.folder.leave();
  }
}

/** The journal of the wanted backup; undefined for other work, and where nothing can be gone on with. */
function ownJournal(folder: SessionFolder, wanted: WantedBackup): Journal | undefined {
  if (!wanted.isNotedIn(notesIn(folder))) return undefined;
  const journal = readJournal(folder.path);
  return journal?.phase === 'begun' && journal.generation !== undefined ? journal : undefined;
}

interface Looked {
  readonly standing: StandingView;
  readonly plan: BackupPlan['disks'];
}

/** What there is to go on with, or why that cannot be; undefined where this QEMU has nothing of it. */
async function lookAt(
  target: Target,
  journal: Journal,
  wanted: WantedBackup,
): Promise<Looked | string | undefined> {
  const { monitor } = target;
  const names = new SessionNames(journal.prefix);
  const jobs = await monitor.execute('query-jobs', undefined, { signal: wanted.signal });
  if (!jobs.some(({ id }) => names.holdsView(id))) return undefined;
  const { standing, frozen } = journal;
  if (standing === undefined || frozen !== undefined) return 'it had not begun to read';
  const why = otherBackup(journal, standing, wanted);
  if (why !== undefined) return why;
  const { disks, nodes } = await takeInventory(monitor, wanted.disks, wanted.signal);
  const exports = await monitor.execute('query-block-exports');
  if (disks.length !== journal.disks.length) return 'it is of other disks';
  for (const [index, disk] of disks.entries()) {
    const lacking =
      otherDisk(disk, journal, index, standing) ??
      unsound(jobs, nodes, names, index) ??
      unexported(exports, names, index, standing) ??
      unmarked(disk, nodes, { journal, names, index, standing });
    if (lacking !== undefined) return `${disk.name}: ${lacking}`;
  }
  const plan = disks.map((disk, index) => {
    const { mode, reason } = standing.disks[index];
    // What is on it is this backup.
    return { disk: { ...disk, obstacles: [] }, mode, reason };
  });
  try {
    await checkFilters(target, { disks: plan }, wanted, (index) => names.filter(index));
  } catch (error) {
    return (error as Error).message;
  }
  return { standing, plan };
}

/** Why it is not what the next backup is to be. */
function otherBackup(
  { base }: Journal,
  { kind, wasFrozen }: StandingView,
  wanted: WantedBackup,
): string | undefined {
  if (base !== wanted.base) return 'there is another newest restore point since';
  if (wanted.view !== undefined && wanted.view !== kind) return `its view is of the kind ${kind}`;
  if (wanted.freeze === 'require' && !wasFrozen) return 'the guest was not frozen for it';
  return undefined;
}

function otherDisk(
  disk: MachineDisk,
  journal: Journal,
  index: number,
  standing: StandingView,
): string | undefined {
  const was = journal.disks[index];
  const isSame =
    disk.name === was.name &&
    disk.qdev === was.qdev &&
    disk.file === was.file &&
    disk.node === was.node &&
    disk.size === standing.disks[index]?.size;
  return isSame ? undefined : `it was another disk (${was.name} in ${was.file})`;
}

/** What is wrong with what holds the view; {@link InterruptedBackup.open} looks again. */
function unsound(
  jobs: readonly JobInfo[],
  nodes: readonly NodeInfo[],
  names: SessionNames,
  index: number,
): string | undefined {
  const job = jobs.find(({ id }) => id === names.job(index));
  if (job === undefined || !isSound(job.status)) return `its view has ended (${names.job(index)})`;
  const scratch = nodes.find((node) => node['node-name'] === names.scratchFile(index));
  if (scratch === undefined) return 'its scratch image is gone';
  // QEMU takes a threshold away when it tells of it.
  if (scratch.write_threshold !== 0) return undefined;
  return 'the guest has overwritten more than its scratch image may hold';
}

function unexported(
  exports: readonly ExportInfo[],
  names: SessionNames,
  index: number,
  { kind }: StandingView,
): string | undefined {
  const found = exports.find(({ id }) => id === names.export(index));
  const node = kind === 'access' ? names.access(index) : names.scratch(index);
  const isSame = found?.['node-name'] === node && !found['shutting-down'];
  return isSame ? undefined : 'its view is not exported any more';
}

/** Without the new bitmap the next backup would be full; without the copy of the old one nobody knows what to read. */
function unmarked(
  { name, bitmaps }: MachineDisk,
  nodes: readonly NodeInfo[],
  view: { journal: Journal; names: SessionNames; index: number; standing: StandingView },
): string | undefined {
  const { journal, names, index, standing } = view;
  const fresh = bitmaps.find((bitmap) => bitmap.name === bitmapOf(journal.generation!, name));
  if (!fresh?.recording || fresh.inconsistent) return 'its new bitmap is gone';
  if (standing.disks[index].mode === 'full') return undefined;
  const scratch = nodes.find((node) => node['node-name'] === names.scratch(index));
  const isKnown = scratch?.['dirty-bitmaps']?.some((copy) => copy.name === names.dirty);
  return isKnown ? undefined : 'what has changed is not known any more';
}
