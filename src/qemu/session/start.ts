import { createQcow2 } from '../../block/index.js';
import { type LacunaError, throwIfAborted } from '../../errors/index.js';
import { GuestAgent } from '../../qmp/index.js';
import { AgentGuard } from '../guard/index.js';
import { Teardown, type ViewedDisk, ViewMaker } from '../view/index.js';
import { Beginning, beginSession, type Starter } from './beginning.js';
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

/** Begins a backup of a machine that is reached through its monitor. */
export async function startSession(target: Target, options: BackupOptions): Promise<BackupSession> {
  const plan = await planBackup(target, options);
  refuseObstacles(plan, target.monitor.name);
  return await beginSession(new Start(target, plan, options));
}

class Start implements Starter {
  readonly #target: Target;
  readonly #plan: BackupPlan;
  readonly #options: BackupOptions;
  readonly #beginning = new Beginning();
  readonly #watch: ViewWatch;
  #session: BackupSession | undefined;
  #lost: LacunaError | undefined;

  constructor(target: Target, plan: BackupPlan, options: BackupOptions) {
    this.#target = target;
    this.#plan = plan;
    this.#options = options;
    const { names } = this.#beginning;
    this.#watch = new ViewWatch(target.monitor, names, plan.disks.length, (failure) => {
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
      note: (mayBeFrozen) => this.#beginning.write({ frozen: mayBeFrozen ? agent : undefined }),
    });
  }

  async run(freezer: Freezer): Promise<BackupSession> {
    const { monitor } = this.#target;
    const { signal } = this.#options;
    const limit = this.#scratchBytes();
    const viewed = await this.#prepareFolder();
    const { names } = this.#beginning;
    const maker = new ViewMaker(monitor, names, this.#plan.view, signal);
    const { nbd, generation } = this.#beginning.journal;
    if (nbd.isOurs) await maker.startServer(nbd.server);
    for (const disk of viewed) await maker.openScratch(disk, limit);
    throwIfAborted(signal);
    this.#watch.start();
    let time = '';
    await freezer.during(async () => {
      await maker.begin(viewed, generation, TRANSACTION_MS);
      time = new Date().toISOString();
    });
    await checkFilters(this.#target, this.#plan, this.#options, (disk) => names.filter(disk));
    for (const disk of viewed) {
      await maker.expose(disk);
      await this.#open(disk);
    }
    throwIfAborted(signal);
    return this.#begun(
      pointOf(this.#beginning.journal, this.#plan.disks, time, freezer),
      freezer.warnings,
    );
  }

  async undo(error: LacunaError): Promise<void> {
    this.#watch.stop();
    await this.#beginning.undo(error, () => this.#takeDown());
  }

  async #takeDown(): Promise<void> {
    const { names, journal } = this.#beginning;
    const teardown = new Teardown(this.#target.monitor, names);
    await teardown.run();
    if (journal.generation !== undefined) await teardown.removeBitmaps(journal.generation);
    await teardown.endServer(journal.nbd);
  }

  async #prepareFolder(): Promise<ViewedDisk[]> {
    const { folder: base, nbd, address } = this.#target;
    await this.#beginning.open(base, this.#options, (folder) => ({
      monitor: address,
      nbd: { server: nbd ?? { type: 'unix', path: folder.socket }, isOurs: nbd === undefined },
      disks: this.#plan.disks.map(({ disk: { name, qdev, file, node } }) => ({
        ...{ name, file, node },
        ...(qdev !== undefined && { qdev }),
      })),
    }));
    const viewed = this.#plan.disks.map((plan, index) => ({
      ...{ index, plan },
      scratch: this.#beginning.folder.scratch(index),
    }));
    for (const { plan, scratch } of viewed) {
      await createQcow2(scratch, { size: plan.disk.size, exclusive: true, mode: 0o600 });
    }
    return viewed;
  }

  #scratchBytes(): number {
    const { scratchFreeBytes, disks } = this.#plan;
    const { scratchBytes } = this.#options;
    return scratchBytes ?? scratchLimit(this.#target.folder, scratchFreeBytes, disks.length);
  }

  async #open({ index, plan }: ViewedDisk): Promise<void> {
    const { names, journal, control, disks } = this.#beginning;
    const view = {
      server: journal.nbd.server,
      name: names.export(index),
      dirty: plan.bitmap === undefined ? undefined : names.dirty,
      canRelease: this.#plan.view === 'access',
    };
    const check = () => {
      if (this.#lost !== undefined) throw this.#lost;
    };
    const link = { signal: control.signal, check };
    disks.push(await SessionDisk.open(plan, view, link));
  }

  #begun(point: PointInTime, warnings: readonly string[]): BackupSession {
    const { names, folder, journal, disks, control } = this.#beginning;
    const parts = {
      hold: new QemuHold(this.#target.monitor, names, this.#watch, journal.nbd),
      ...{ folder, journal },
      view: this.#plan.view,
      ...{ point, warnings },
    };
    this.#session = new BackupSession(parts, disks, control);
    if (this.#lost !== undefined) this.#session.lose(this.#lost);
    return this.#session;
  }
}
