import { createQcow2, createRawFile } from '../../block/index.js';
import { type LacunaError, throwIfAborted } from '../../errors/index.js';
import { GuestAgent } from '../../qmp/index.js';
import { AgentGuard } from '../guard/index.js';
import { changesIn, Landing, landedDevice, Push, viewBelow } from '../push/index.js';
import { Teardown, type ViewedDisk, ViewMaker } from '../view/index.js';
import { Beginning, beginSession, type Starter } from './beginning.js';
import { Freezer } from './freezer.js';
import type { BackupOptions } from './options.js';
import {
  type BackupPlan,
  checkFilters,
  needsServer,
  planBackup,
  refuseObstacles,
} from './plan-backup.js';
import { type PointInTime, pointOf } from './point.js';
import { QemuHold } from './qemu-hold.js';
import { landingLimit, scratchLimit } from './scratch-limit.js';
import { BackupSession } from './session.js';
import { openView, SessionDisk, type ViewExport } from './session-disk.js';
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
  #landing: Landing | undefined;
  #push: Push | undefined;
  #arrival: Promise<void> | undefined;

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
    if (this.#isPushed) await this.#startLanding(limit * viewed.length);
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
    if (this.#isPushed) await this.#startPush(maker, viewed);
    else await this.#openExports(maker, viewed);
    throwIfAborted(signal);
    if (!this.#isPushed) await this.#noteStanding(time, freezer);
    return this.#begun(
      pointOf(this.#beginning.journal, this.#plan.disks, time, freezer),
      freezer.warnings,
    );
  }

  /** From here on another process can go on with it. What QEMU pushes ends with this one. */
  async #noteStanding(time: string, { hasFrozen, warnings }: Freezer): Promise<void> {
    const { view: kind } = this.#plan;
    const disks = this.#plan.disks.map(({ disk: { size }, mode, reason }) => ({
      ...{ size, mode, reason },
    }));
    const standing = { kind, time, wasFrozen: hasFrozen, warnings, disks };
    await this.#beginning.write({ standing });
  }

  async undo(error: LacunaError): Promise<void> {
    this.#watch.stop();
    await this.#beginning.undo(error, () => this.#takeDown());
    this.#landing?.free();
  }

  async #takeDown(): Promise<void> {
    const { names, journal } = this.#beginning;
    await (this.#push ?? this.#landing)?.close();
    const teardown = new Teardown(this.#target.monitor, names);
    await teardown.run();
    if (journal.generation !== undefined) await teardown.removeBitmaps(journal.generation);
    await teardown.endServer(journal.nbd);
  }

  async #prepareFolder(): Promise<ViewedDisk[]> {
    const { folder: base, nbd, address } = this.#target;
    await this.#beginning.open(base, this.#options, (folder) => ({
      monitor: address,
      nbd: {
        server: nbd ?? { type: 'unix', path: folder.socket },
        isOurs: nbd === undefined && needsServer(this.#plan),
      },
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
    // What QEMU pushes lands beside the scratch images.
    const free = this.#isPushed ? scratchFreeBytes / 2 : scratchFreeBytes;
    return scratchBytes ?? scratchLimit(this.#target.folder, free, disks.length);
  }

  get #isPushed(): boolean {
    return this.#plan.fetch === 'push';
  }

  /** Nothing is begun in QEMU yet. */
  async #startLanding(scratchBytes: number): Promise<void> {
    const { folder } = this.#beginning;
    const mostBytes = landingLimit(this.#target.folder, this.#plan.scratchFreeBytes, scratchBytes);
    const disks = this.#plan.disks.map(({ disk: { size } }, index) => ({
      ...{ file: folder.landing(index), size },
    }));
    for (const { file, size } of disks) {
      await createRawFile(file, size, { exclusive: true, mode: 0o600 });
    }
    const lost = (failure: Error) => this.#push?.fail(failure);
    this.#landing = await Landing.start({ socket: folder.outSocket, disks, mostBytes }, lost);
  }

  async #startPush(maker: ViewMaker, viewed: readonly ViewedDisk[]): Promise<void> {
    const { monitor } = this.#target;
    const { pushRate: rate, signal } = this.#options;
    const { names, folder, control, disks } = this.#beginning;
    const landing = this.#landing!;
    this.#push = new Push({ monitor, names, disks: viewed, landing, rate, signal });
    this.#arrival = this.#push.done.then(() => this.#watch.check());
    this.#arrival.catch((failure: LacunaError) => {
      this.#lost ??= failure;
      this.#session?.lose(failure);
    });
    for (const disk of viewed) {
      const { index, plan } = disk;
      const common = {
        ...{ file: folder.landing(index), size: plan.disk.size },
        ...{ ranges: landing.ranges[index], arrival: this.#arrival },
      };
      const link = this.#link(control.signal);
      if (plan.bitmap === undefined) {
        await maker.show(disk);
        disks.push(SessionDisk.landing(plan, landedDevice(common), undefined, link));
        continue;
      }
      // What has not changed may be asked for as well.
      await maker.expose(disk, true);
      const served = { ...this.#exportOf(disk), canRelease: false };
      const view = await openView(served, control.signal);
      const below = await viewBelow(view, signal);
      const context = `qemu:dirty-bitmap:${names.dirty}`;
      const device = landedDevice({ ...common, context, below });
      disks.push(SessionDisk.landing(plan, device, context, link));
      const changes = await changesIn(view, context, signal);
      landing.ranges[index].want(changes);
      changes.free();
    }
    await this.#push.begin();
  }

  #link(signal: AbortSignal) {
    const check = () => {
      if (this.#lost !== undefined) throw this.#lost;
    };
    return { signal, check };
  }

  async #openExports(maker: ViewMaker, viewed: readonly ViewedDisk[]): Promise<void> {
    for (const disk of viewed) {
      await maker.expose(disk);
      await this.#open(disk);
    }
  }

  #exportOf({ index, plan }: ViewedDisk): ViewExport {
    const { names, journal } = this.#beginning;
    return {
      server: journal.nbd.server,
      name: names.export(index),
      dirty: plan.bitmap === undefined ? undefined : names.dirty,
      canRelease: this.#plan.view === 'access',
    };
  }

  async #open(disk: ViewedDisk): Promise<void> {
    const { control, disks } = this.#beginning;
    const link = this.#link(control.signal);
    disks.push(await SessionDisk.open(disk.plan, this.#exportOf(disk), link));
  }

  #begun(point: PointInTime, warnings: readonly string[]): BackupSession {
    const { names, folder, journal, disks, control } = this.#beginning;
    const parts = {
      hold: new QemuHold(this.#target.monitor, names, {
        watch: this.#watch,
        nbd: journal.nbd,
        push: this.#push,
      }),
      ...{ folder, journal, arrival: this.#arrival, isAllPushed: !needsServer(this.#plan) },
      push: this.#push,
      view: this.#plan.view,
      ...{ point, warnings },
    };
    this.#session = new BackupSession(parts, disks, control);
    if (this.#lost !== undefined) this.#session.lose(this.#lost);
    return this.#session;
  }
}
