/**
 * The view of a session: every disk as it was at one point in time, while the guest goes on writing.
 *
 * `overlay`, in any version: a scratch image over the disk, into which a job of QEMU copies old data before the guest
 * overwrites it. What the overlay does not hold, it shows of the disk. It must lie over the very node above which the job
 * puts its filter: only then QEMU keeps a read of the overlay and a write of the guest to the same place apart.
 *
 * `access`, from 8.0: the scratch image stands alone, and a node of QEMU's shows old data from it and the rest from
 * the disk. It fails loudly when the job has ended, and a TRIM of a range gives its scratch space back and ends the
 * copying for it. Below 8.0 that node shows wrong data after the guest has zeroed something.
 */
import type { NbdServerAddress } from '../../nbd/index.js';
import type { Monitor, QmpNeeds, QmpVersion } from '../../qmp/index.js';
import type { DiskPlan } from '../inspect/index.js';
import { bitmapOf, type SessionNames } from '../state/index.js';

/** How a view is made; see the documents for what each guarantees. */
export type ViewKind = 'overlay' | 'access';

/** The first version whose snapshot-access is sound. */
const ACCESS_FROM = 8;

/** What all work in a machine needs: to look at its disks, to serve them, and to take away what it had there. */
export const COMMON_NEEDS: QmpNeeds = {
  'blockdev-del': [],
  'block-dirty-bitmap-remove': [],
  'block-export-del': ['mode.hard'],
  'query-block-exports': [],
  'nbd-server-start': [],
  'nbd-server-stop': [],
  'query-jobs': [],
  'job-cancel': [],
  'job-dismiss': [],
  'x-debug-query-block-graph': [],
};

const NEEDS: QmpNeeds = {
  ...COMMON_NEEDS,
  'blockdev-add': ['driver.qcow2', 'driver.file'],
  'blockdev-backup': ['job-id', 'filter-node-name', 'auto-dismiss', 'sync.none'],
  transaction: [
    'actions.type.block-dirty-bitmap-add',
    'actions.type.block-dirty-bitmap-merge',
    'actions.type.blockdev-backup',
  ],
  'block-export-add': ['type.nbd', 'bitmaps', 'node-name'],
  'block-set-write-threshold': [],
};

/** Lets the guest go on where old data cannot be kept, and breaks the view; from 10.1. */
const BREAKS: QmpNeeds = { 'blockdev-backup': ['on-cbw-error.break-snapshot'] };

const ACCESS_NEEDS: QmpNeeds = { 'blockdev-add': ['driver.snapshot-access', 'discard'] };

/** The best kind of view that a QEMU can give. */
export async function viewKindOf(monitor: Monitor, signal?: AbortSignal): Promise<ViewKind> {
  await monitor.require(NEEDS, { signal });
  const isSound = hasSoundAccess(monitor.version);
  const schema = await monitor.schema({ signal });
  return isSound && schema.missing(ACCESS_NEEDS).length === 0 ? 'access' : 'overlay';
}

function hasSoundAccess({ major }: QmpVersion): boolean {
  return major >= ACCESS_FROM;
}

/** A disk of a session, by the number that its names have. */
export interface ViewedDisk {
  readonly index: number;
  readonly plan: DiskPlan;
  /** The file of its scratch image. */
  readonly scratch: string;
}

/** What a view is made of; every command of it is sent once. */
export class ViewMaker {
  readonly #monitor: Monitor;
  readonly #names: SessionNames;
  readonly #kind: ViewKind;
  readonly #signal: AbortSignal | undefined;

  constructor(monitor: Monitor, names: SessionNames, kind: ViewKind, signal?: AbortSignal) {
    this.#monitor = monitor;
    this.#names = names;
    this.#kind = kind;
    this.#signal = signal;
  }

  async startServer(server: NbdServerAddress): Promise<void> {
    const { type, ...data } = server;
    const strings = 'port' in data ? { ...data, port: String(data.port) } : data;
    await this.#execute('nbd-server-start', { addr: { type, data: strings } });
  }

  /** Opens the scratch image of a disk, and bounds it. */
  async openScratch({ index, plan, scratch }: ViewedDisk, limitBytes: number): Promise<void> {
    const names = this.#names;
    await this.#execute('blockdev-add', {
      driver: 'qcow2',
      'node-name': names.scratch(index),
      discard: 'unmap',
      file: {
        driver: 'file',
        'node-name': names.scratchFile(index),
        filename: scratch,
        discard: 'unmap',
      },
      backing: this.#kind === 'overlay' ? plan.disk.top : null,
    });
    await this.#execute('block-set-write-threshold', {
      'node-name': names.scratchFile(index),
      'write-threshold': limitBytes,
    });
  }

  /**
   * The one command that makes the point in time of all disks: new bitmaps begin to record, old ones are copied and go on,
   * and old data is kept from here on. It is done as a whole, or not at all.
   */
  async begin(
    disks: readonly ViewedDisk[],
    generation: string | undefined,
    timeoutMs: number,
  ): Promise<void> {
    const schema = await this.#monitor.schema({ signal: this.#signal });
    // Of an overlay, a view that is broken would show newer data without an error.
    const breaks = this.#kind === 'access' && schema.missing(BREAKS).length === 0;
    const actions = disks.flatMap((disk) => this.#actions(disk, generation, breaks));
    await this.#monitor.execute('transaction', { actions }, { timeoutMs });
  }

  /** Makes the view of a disk a node of its own; only a view of the kind `access` can be one. */
  async show({ index }: ViewedDisk): Promise<void> {
    await this.#execute('blockdev-add', {
      driver: 'snapshot-access',
      'node-name': this.#names.access(index),
      file: this.#names.filter(index),
      discard: 'unmap',
    });
  }

  /**
   * Makes the view of a disk an export.
   *
   * @param isPushed whether a job of QEMU's is going to take what the bitmap of an increment says; it gets a copy, because
   *   nothing else can use a bitmap that is exported
   */
  async expose(disk: ViewedDisk, isPushed = false): Promise<void> {
    const { index, plan } = disk;
    const names = this.#names;
    const isAccess = this.#kind === 'access';
    if (isAccess) await this.show(disk);
    const dirty = { node: names.scratch(index), name: names.dirty };
    if (isPushed && plan.bitmap !== undefined) {
      const { granularity } = plan.bitmap;
      const copy = { node: names.access(index), name: names.dirty };
      await this.#execute('block-dirty-bitmap-add', { ...copy, granularity, disabled: true });
      await this.#execute('block-dirty-bitmap-merge', {
        ...{ node: copy.node, target: copy.name, bitmaps: [dirty] },
      });
    }
    await this.#execute('block-export-add', {
      type: 'nbd',
      id: names.export(index),
      'node-name': isAccess ? names.access(index) : names.scratch(index),
      name: names.export(index),
      // Writes are refused; a TRIM gives scratch space back.
      writable: isAccess,
      ...(plan.bitmap !== undefined && { bitmaps: [dirty] }),
    });
  }

  #actions({ index, plan }: ViewedDisk, generation: string | undefined, breaks: boolean): object[] {
    const names = this.#names;
    const { disk, bitmap } = plan;
    const [node, scratch] = [disk.node, names.scratch(index)];
    const actions: { type: string; data: object }[] = [];
    if (generation !== undefined) {
      const data = { node, name: bitmapOf(generation, disk.name), persistent: disk.canPersist };
      actions.push({ type: 'block-dirty-bitmap-add', data });
    }
    if (bitmap !== undefined) {
      const { granularity, name } = bitmap;
      const copy = { node: scratch, name: names.dirty, granularity, disabled: true };
      const bitmaps = [{ node, name }];
      actions.push({ type: 'block-dirty-bitmap-add', data: copy });
      actions.push({
        type: 'block-dirty-bitmap-merge',
        data: { node: scratch, target: names.dirty, bitmaps },
      });
    }
    actions.push({
      type: 'blockdev-backup',
      data: {
        'job-id': names.job(index),
        device: disk.top,
        target: scratch,
        sync: 'none',
        'filter-node-name': names.filter(index),
        'auto-dismiss': false,
        ...(breaks && { 'on-cbw-error': 'break-snapshot' }),
      },
    });
    return actions;
  }

  async #execute(command: string, args: object): Promise<void> {
    await this.#monitor.execute(command, args, { signal: this.#signal });
  }
}
