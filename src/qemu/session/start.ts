import { createQcow2 } from '../../block/index.js';
import { type LacunaError, throwIfAborted } from '../../errors/index.js';
import { GuestAgent } from '../../qmp/index.js';
import { AgentGuard } from '../guard/index.js';
import {
  type Journal,
  newGeneration,
  SessionFolder,
  SessionNames,
  writeJournal,
} from '../state/index.js';
import { Teardown, type ViewedDisk, ViewMaker } from '../view/index.js';
import { Freezer } from './freezer.js';
import type { BackupOptions } from './options.js';
import { type BackupPlan, checkFilters, planBackup, refuseObstacles } from './plan-backup.js';
import { type PointInTime, pointOf } from './point.js';
import { QemuHold } from './qemu-hold.js';
import { scratchLimit } from './scratch-limit.js';
import { BackupSession } from './session.js';
import { SessionDisk } from './session-disk.js';
import type { Target } from './target.js';
import { ViewWatch } from './view-watch.js';

/** The guest may stand still for so long at most while QEMU makes the point in time. */
const TRANSACTION_MS = 30_000;

/** Begins a backup. When it fails, everything that was begun is undone before the error is thrown. */
export async function startSession(target: Target, options: BackupOptions): Promise<BackupSession> {
  const plan = await planBackup(target, options);
  refuseObstacles(plan, target.monitor.name);
  const start = new Start(target, plan, options);
  const freezer = await start.freezer();
  try {
    return await start.run(freezer);
  } catch (error) {
    await start.undo(error as LacunaError);
    throw error;
  } finally {
    await freezer.close();
  }
}

class Start {
  readonly #target: Target;
  readonly #plan: BackupPlan;
  readonly #options: BackupOptions;
  readonly #names = SessionNames.random();
  readonly #control = new AbortController();
  readonly #disks: SessionDisk[] = [];
  readonly #watch: ViewWatch;
  #folder: SessionFolder | undefined;
  #journal: Journal | undefined;
  #session: BackupSession | undefined;
  #lost: LacunaError | undefined;

  constructor(target: Target, plan: BackupPlan, options: BackupOptions) {
    this.#target = target;
    this.#plan = plan;
    this.#options = options;
    this.#watch = new ViewWatch(target.monitor, this.#names, plan.disks.length, (failure) => {
      this.#lost ??= failure;
      this.#session?.lose(failure);
    });
  }

  /** Nothing is made yet; the guest is only told that somebody is there. */
  freezer(): Promise<Freezer> {
    const { agent, monitor } = this.#target;
    const { freezeTimeoutMs, freezeDeadlineMs, signal } = this.#options;
    const { freeze = agent === undefined ? 'off' : 'try' } = this.#options;
    const connect = async () => {
      await GuestAgent.checkPresence(agent!, monitor, signal);
      return await AgentGuard.start(agent!);
    };
    return Freezer.prepare(agent && connect, {
      policy: freeze,
      timeoutMs: freezeTimeoutMs,
      deadlineMs: freezeDeadlineMs,
      note: (mayBeFrozen) => this.#write(mayBeFrozen ? { frozen: agent } : { frozen: undefined }),
    });
  }

  async run(freezer: Freezer): Promise<BackupSession> {
    const { monitor } = this.#target;
    const { signal } = this.#options;
    const limit = this.#scratchBytes();
    const viewed = await this.#prepareFolder();
    const maker = new ViewMaker(monitor, this.#names, this.#plan.view, signal);
    const { nbd, generation } = this.#journal!;
    if (nbd.isOurs) await maker.startServer(nbd.server);
    for (const disk of viewed) await maker.openScratch(disk, limit);
    throwIfAborted(signal);
    this.#watch.start();
    let time = '';
    await freezer.during(async () => {
      await maker.begin(viewed, generation, TRANSACTION_MS);
      time = new Date().toISOString();
    });
    await checkFilters(this.#target, this.#plan, this.#options, (disk) => this.#names.filter(disk));
    for (const disk of viewed) {
      await maker.expose(disk);
      await this.#open(disk);
    }
    throwIfAborted(signal);
    return this.#begun(pointOf(this.#journal!, this.#plan.disks, time, freezer), freezer.warnings);
  }

  /** Takes away what was made; what that cannot do is left to the journal, and said. */
  async undo(error: LacunaError): Promise<void> {
    this.#watch.stop();
    this.#control.abort(error);
    await Promise.all(this.#disks.map((disk) => disk.close()));
    const [folder, journal] = [this.#folder, this.#journal];
    if (folder === undefined) return;
    try {
      if (journal !== undefined) await this.#undoIn(journal);
    } catch (failure) {
      folder.leave();
      error.message += ` (and something is left in the machine: ${(failure as Error).message})`;
      return;
    }
    // What may be frozen is for recover() to thaw.
    if (this.#journal?.frozen !== undefined) folder.leave();
    else folder.remove();
  }

  async #undoIn({ nbd, generation }: Journal): Promise<void> {
    const teardown = new Teardown(this.#target.monitor, this.#names);
    await teardown.run();
    if (generation !== undefined) await teardown.removeBitmaps(generation);
    const warning = nbd.isOurs ? await teardown.stopServer(nbd.server) : undefined;
    if (warning !== undefined) throw new Error(warning);
  }

  /** The journal says everything before any of it is there. */
  async #prepareFolder(): Promise<ViewedDisk[]> {
    const { folder: base, nbd, address } = this.#target;
    const { mode, generation = newGeneration(), keepBase = false } = this.#options;
    const folder = await SessionFolder.create(base, this.#names.prefix);
    this.#folder = folder;
    const server = nbd ?? { type: 'unix', path: folder.socket };
    this.#journal = {
      format: 'lacuna backup session',
      version: 1,
      prefix: this.#names.prefix,
      monitor: address,
      nbd: { server, isOurs: nbd === undefined },
      ...(mode !== 'copy' && { generation }),
      ...(this.#options.base !== undefined && { base: this.#options.base }),
      keepsBase: keepBase || mode === 'copy',
      disks: this.#plan.disks.map(({ disk: { name, qdev, file, node } }) => ({
        ...{ name, file, node },
        ...(qdev !== undefined && { qdev }),
      })),
      phase: 'begun',
    };
    await this.#write({});
    const viewed = this.#plan.disks.map((plan, index) => ({
      ...{ index, plan },
      scratch: folder.scratch(index),
    }));
    for (const { plan, scratch } of viewed) {
      await createQcow2(scratch, { size: plan.disk.size, exclusive: true, mode: 0o600 });
    }
    return viewed;
  }

  async #write(changed: Partial<Journal>): Promise<void> {
    this.#journal = { ...this.#journal!, ...changed };
    await writeJournal(this.#folder!.path, this.#journal);
  }

  #scratchBytes(): number {
    const { scratchFreeBytes, disks } = this.#plan;
    const { scratchBytes } = this.#options;
    return scratchBytes ?? scratchLimit(this.#target.folder, scratchFreeBytes, disks.length);
  }

  async #open({ index, plan }: ViewedDisk): Promise<void> {
    const names = this.#names;
    const view = {
      server: this.#journal!.nbd.server,
      name: names.export(index),
      dirty: plan.bitmap === undefined ? undefined : names.dirty,
      canRelease: this.#plan.view === 'access',
    };
    const check = () => {
      if (this.#lost !== undefined) throw this.#lost;
    };
    const link = { signal: this.#control.signal, check };
    this.#disks.push(await SessionDisk.open(plan, view, link));
  }

  #begun(point: PointInTime, warnings: readonly string[]): BackupSession {
    const journal = this.#journal!;
    const parts = {
      hold: new QemuHold(this.#target.monitor, this.#names, this.#watch, journal.nbd),
      folder: this.#folder!,
      journal,
      view: this.#plan.view,
      ...{ point, warnings },
    };
    this.#session = new BackupSession(parts, this.#disks, this.#control);
    if (this.#lost !== undefined) this.#session.lose(this.#lost);
    return this.#session;
  }
}
