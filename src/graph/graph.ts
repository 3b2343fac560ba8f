import type { BitmapAction } from '../bitmap/index.js';
import { type BlockDevice, isBlockDevice, passThrough } from '../block/index.js';
import { LacunaError } from '../errors/index.js';
import { checkGiven } from '../util/index.js';
import { type BackupOptions, type GraphBackup, openBackup } from './backup/index.js';
import { insertFilter, nameBacking, type Reopening, reopen } from './change/index.js';
import {
  type AddNodeOptions,
  Changer,
  DRAIN_LIMIT_MS,
  type EdgePicture,
  EVERYTHING,
  edgePictures,
  type GraphPicture,
  Node,
  type NodeDescription,
  picture,
  type Root,
  toDot,
} from './core/index.js';
import {
  type BackupJobOptions,
  type BackupJobReport,
  backup,
  type CommitJob,
  type CommitJobOptions,
  commit,
  type GraphJob,
  JobList,
  type MirrorJob,
  type MirrorOptions,
  mirror,
  type PopulateJobOptions,
  type PopulateJobReport,
  populate,
  type StreamJobOptions,
  type StreamJobReport,
  stream,
} from './jobs/index.js';
import {
  type AddExportOptions,
  type ChildReplacement,
  checkAdd,
  checkExport,
  checkGraphOptions,
  checkInsertion,
  checkName,
  checkNotOfJob,
  checkPermissions,
  checkReplacement,
  expectedNow,
  type FilterInsertion,
  type GraphOptions,
  resolveReplacement,
} from './options/index.js';
import {
  type CreateImageOptions,
  type CreateImageReport,
  create,
  type SnapshotOptions,
  snapshot,
} from './snapshot/index.js';
import {
  type GraphAction,
  type TransactionOptions,
  type TransactionResult,
  transaction,
} from './transaction/index.js';

/**
 * Named devices that use each other, and that can be changed while they are in use. Requests enter through exports and jobs
 * alone; a change waits for those in flight, holds up what comes meanwhile, and is made as a whole or not at all.
 *
 *     await using graph = new Graph();
 *     await graph.add({ 'node-name': 'disk', driver: 'qcow2', file: { driver: 'file', filename } }, { writable: true });
 *     const device = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
 *     const server = new NbdServer({ exports: [{ name: 'guest', device }] });
 *     await graph.insertFilter({ filter: { driver: 'throttle', 'node-name': 'slow', 'bytes-per-second': 1e6 }, above: 'disk' });
 */
export class Graph implements AsyncDisposable {
  readonly #changer: Changer;
  /** What `addDevice` was given. */
  readonly #lent = new WeakMap<Node, BlockDevice>();
  readonly #jobs = new JobList();

  constructor(options: GraphOptions = {}) {
    checkGraphOptions('Graph', options);
    const { drainLimitMs = DRAIN_LIMIT_MS } = options;
    if (!(drainLimitMs >= 0 && drainLimitMs < 2 ** 31)) {
      throw new RangeError(`drainLimitMs must be 0 to ${2 ** 31 - 1}, not ${drainLimitMs}`);
    }
    this.#changer = new Changer(drainLimitMs);
  }

  get #state() {
    return this.#changer.state;
  }

  /** All nodes. */
  get nodes(): readonly Node[] {
    return [...this.#state.nodes.values()];
  }

  /** A node by its name. @throws LacunaError ERR_GRAPH_UNKNOWN */
  node(name: string): Node {
    return this.#state.node(name);
  }

  /** All exports and jobs. */
  get users(): readonly Root[] {
    return [...this.#state.roots.values()];
  }

  /** The jobs, in the order in which they began; those that have ended are among them until they are dismissed. */
  get jobs(): readonly GraphJob<unknown>[] {
    return this.#jobs.jobs;
  }

  /** Who uses which node, and as what. */
  get edges(): readonly EdgePicture[] {
    return edgePictures(this.#state);
  }

  /**
   * Opens a node, and with it what its description says below it.
   *
   * @throws TypeError for a description that is not valid. LacunaError ERR_GRAPH_EXISTS, ERR_GRAPH_UNKNOWN for a name that is
   * mentioned; ERR_GRAPH_CONFLICT where another user of a node that it mentions does not go with it; what `openDevice` throws.
   */
  add(description: NodeDescription, options: AddNodeOptions = {}): Promise<Node> {
    checkGiven('Graph.add', 'description', description, 'of the device that becomes a node');
    checkAdd('Graph.add', options);
    return this.#changer.run(() => this.#changer.add(description, options));
  }

  /**
   * Closes a node that nobody uses, and what was opened with it, unless others use that.
   *
   * @throws LacunaError ERR_GRAPH_UNKNOWN, ERR_GRAPH_BUSY; what closing throws: it is gone all the same then.
   */
  remove(node: string | Node): Promise<void> {
    return this.#changer.run(async () => {
      const gone = this.#state.node(node);
      checkNotOfJob(gone);
      await this.#state.remove(gone);
    });
  }

  /**
   * Lets requests in: what is returned is a device, for an NBD server or for a program. Closing it takes it out again.
   *
   * @throws LacunaError ERR_GRAPH_UNKNOWN, ERR_GRAPH_EXISTS, ERR_GRAPH_CONFLICT
   */
  addExport(options: AddExportOptions): Promise<Root> {
    checkExport('Graph.addExport', options);
    const { name, node, writable = false, shares = EVERYTHING } = options;
    checkName(name);
    checkPermissions(shares);
    return this.#changer.run(async () =>
      this.#changer.enter({
        name,
        what: 'export',
        node: this.#state.node(node),
        writable,
        shares,
      }),
    );
  }

  /**
   * Lets a node, an export or a job use another node in place of the one that it uses. With a list, all of it happens at one
   * moment.
   *
   * @throws LacunaError ERR_GRAPH_EDGE_CHANGED where another node is there than expected; ERR_GRAPH_CONFLICT where sizes differ,
   * nodes would lie in a circle, users would not go together, or another disk would be shown; ERR_GRAPH_BUSY where requests did
   * not end in time; ERR_GRAPH_UNKNOWN. Nothing was changed then. Where a node that nobody uses any more cannot be closed, that
   * error is thrown behind the change, which stays.
   */
  async replaceChild(replacements: ChildReplacement | readonly ChildReplacement[]): Promise<void> {
    const list = Array.isArray(replacements) ? replacements : [replacements];
    const changer = this.#changer;
    const meant = list.map((one: ChildReplacement) => {
      checkReplacement('Graph.replaceChild', one);
      return { one, expected: expectedNow(changer, one) };
    });
    await changer.run(() =>
      changer.change({
        edges: meant.map(({ one, expected }) => resolveReplacement(changer, one, expected)),
      }),
    );
  }

  /**
   * Changes the bitmaps of nodes, of all of them at one moment: every write is on one side of it, in all bitmaps. Where one
   * action fails, nothing is changed.
   *
   * @param actions what is done to the bitmaps of each node, by its name; see `DirtyBitmaps.transaction`.
   * @throws LacunaError ERR_GRAPH_UNKNOWN, ERR_GRAPH_BUSY; what the actions throw.
   */
  changeBitmaps(actions: Readonly<Record<string, readonly BitmapAction[]>>): Promise<void> {
    checkGiven('Graph.changeBitmaps', 'actions', actions, 'lists of actions by names of nodes');
    for (const [name, list] of Object.entries(actions)) {
      if (Array.isArray(list) && list.every((one) => typeof one === 'object' && one !== null))
        continue;
      throw new TypeError(`what is done to the bitmaps of '${name}' must be a list of actions`);
    }
    return this.#changer.run(() => {
      const bitmaps = Object.entries(actions).map(([name, list]) => ({
        node: this.#state.node(name),
        actions: list,
      }));
      return this.#changer.change({ bitmaps });
    });
  }

  /**
   * Makes the image of a node keep its persistent bitmaps as they are now; closing it does that too.
   *
   * @throws LacunaError ERR_GRAPH_UNKNOWN; what writing throws.
   */
  storeBitmaps(node: string | Node): Promise<void> {
    return this.#changer.run(() => this.#state.node(node).log.store());
  }

  /**
   * Lets a device that is open be a node: one that a driver of one's own makes, say. It belongs to its opener, who closes it
   * when the node was removed, and does not use it until then.
   *
   * @throws TypeError where it is no device, or an export of this graph. LacunaError ERR_GRAPH_EXISTS; ERR_GRAPH_CONFLICT where the
   * device is a node already: what the one is used for would not be seen at the other.
   */
  addDevice(name: string, device: BlockDevice): Promise<Node> {
    checkGiven('Graph.addDevice', 'name', name, 'what the node is called');
    checkGiven('Graph.addDevice', 'device', device, 'the open device that becomes a node');
    checkName(name);
    if (!isBlockDevice(device)) throw new TypeError('device must be a device that is open');
    return this.#changer.run(async () => {
      this.#changer.checkOpen();
      this.#state.checkFree(name);
      this.#checkNew(device);
      const { capabilities, description } = device;
      const driverName = description?.driver ?? 'device';
      const options = { name, driverName, writable: capabilities.write };
      const node = new Node({ ...options, isFilter: false, isOwned: false });
      node.begin(
        passThrough(device, (_request, pass) => pass(), undefined, nothing),
        false,
      );
      this.#lent.set(node, device);
      this.#state.nodes.set(name, node);
      return node;
    });
  }

  /**
   * Adds a filter between a node and those who use it.
   *
   * @throws as {@link add} and {@link replaceChild}; nothing stays then.
   */
  insertFilter(insertion: FilterInsertion): Promise<Node> {
    checkInsertion('Graph.insertFilter', insertion);
    if (insertion.parents !== undefined && !Array.isArray(insertion.parents)) {
      throw new TypeError('parents must be a list of nodes, exports and jobs');
    }
    if ('file' in Object(insertion.filter)) {
      throw new TypeError('leave "file" out of the filter: above says what it lies above');
    }
    return this.#changer.run(() => insertFilter(this.#changer, insertion));
  }

  /**
   * Takes a filter out: those who use it use the node below it from then on.
   *
   * @throws TypeError where it is not a filter; as {@link replaceChild}.
   */
  removeFilter(filter: string | Node): Promise<void> {
    return this.#changer.run(async () => {
      const gone = this.#state.node(filter);
      checkNotOfJob(gone);
      await this.#changer.removeFilters([gone]);
    });
  }

  /**
   * Begins a backup of nodes, all at one point in time: of each a view that stays as it is while the node is written, what is dirty,
   * and its data, until the backup is finished or given up.
   *
   * @throws LacunaError ERR_GRAPH_UNKNOWN; ERR_GRAPH_BUSY; ERR_BITMAP_BUSY, ERR_BITMAP_INCONSISTENT where the bitmap cannot be used;
   * what opening the scratch nodes throws. Nothing stays then.
   */
  openBackup(options: BackupOptions): Promise<GraphBackup> {
    const opened = openBackup(this.#changer, options);
    // That it cannot be opened is told to the caller.
    const end = () => opened.then((begun) => begun.fail(), nothing);
    this.#jobs.keep(
      end,
      opened.then((begun) => begun.ended),
    );
    return opened;
  }

  /**
   * Starts a backup job: copies nodes into targets as they are at one point in time, while they are written.
   *
   * @throws TypeError or RangeError for options that make no sense. Everything else rejects the job: what {@link openBackup} throws,
   * ERR_VIEW_LOST where what is about to be changed could not be copied, what reading and writing throws, ERR_JOB_STOPPED, ERR_ABORTED.
   */
  backup(options: BackupJobOptions): GraphJob<BackupJobReport> {
    return this.#jobs.add(backup(this.#changer, options));
  }

  /**
   * Starts a stream job: copies into an image what it shows of the layers below it, while it is written, and takes those out.
   *
   * @throws TypeError or RangeError for options that make no sense. Everything else rejects the job: LacunaError ERR_GRAPH_UNKNOWN,
   * ERR_GRAPH_CONFLICT, ERR_IMAGE_CHAIN where the base has no name, or the image has internal snapshots; ERR_GRAPH_BUSY, what
   * reading and writing throws, ERR_JOB_STOPPED, ERR_ABORTED. The image shows the same in any case, and has its layers still.
   */
  stream(options: StreamJobOptions): GraphJob<StreamJobReport> {
    return this.#jobs.add(stream(this.#changer, options));
  }

  /**
   * Starts a commit job: puts what images of a chain hold into the one below them, which then comes into use in the place of the
   * uppermost; those go. Where that is written, the job keeps the base up to date until it is told to complete, or to be cancelled.
   *
   * @throws TypeError or RangeError for options that make no sense. Everything else rejects the job: LacunaError ERR_GRAPH_UNKNOWN,
   * ERR_GRAPH_CONFLICT where others use the layers, or the base cannot come in the place of the images; ERR_IMAGE_CHAIN where
   * it has no name, or one of the images has internal snapshots; ERR_DEVICE_LOCKED where others use the base; ERR_GRAPH_BUSY, what reading
   * and writing throws, ERR_JOB_STOPPED, ERR_ABORTED. The images show the same in any case.
   */
  commit(options: CommitJobOptions): CommitJob {
    return this.#jobs.add(commit(this.#changer, options));
  }

  /**
   * Starts a mirror job: copies a node to a target, and what is written meanwhile too, until it is told to complete, and the target comes
   * into use in the place of the node, or to be cancelled.
   *
   * @throws TypeError or RangeError for options that make no sense. Everything else rejects the job: ERR_GRAPH_UNKNOWN, ERR_GRAPH_CONFLICT,
   * ERR_GRAPH_BUSY; ERR_BITMAP_BUSY, ERR_BITMAP_INCONSISTENT where the bitmap cannot be used; what reading and writing throws;
   * ERR_ARENA_FULL where a write could not be noted; ERR_JOB_STOPPED, ERR_ABORTED.
   */
  mirror(options: MirrorOptions): MirrorJob {
    return this.#jobs.add(mirror(this.#changer, options));
  }

  /**
   * Starts a populate job: makes bitmaps dirty, or clean, by what is allocated in nodes, while they are written. All bitmaps change at
   * one moment; what is written while the job runs counts, and is never made clean. A job that fails or is stopped has changed none.
   *
   * @throws TypeError for options that make no sense. Everything else rejects the job: LacunaError ERR_GRAPH_UNKNOWN,
   * ERR_GRAPH_BUSY, ERR_BITMAP_UNKNOWN, ERR_BITMAP_BUSY, ERR_BITMAP_INCONSISTENT, ERR_BITMAP_READONLY, ERR_BITMAP_MISMATCH where
   * sizes differ, ERR_JOB_STOPPED, ERR_ABORTED.
   */
  populate(options: PopulateJobOptions): GraphJob<PopulateJobReport> {
    return this.#jobs.add(populate(this.#changer, options));
  }

  /**
   * Starts a job that makes a new image, durably, for a description by which it can be a node afterwards. It replaces no file.
   *
   * @throws TypeError for options that make no sense. Everything else rejects the job: LacunaError ERR_GRAPH_UNKNOWN;
   * ERR_GRAPH_CONFLICT where the content of `over` is in no file; what `createQcow2` and `createRawFile` throw.
   */
  create(options: CreateImageOptions): GraphJob<CreateImageReport> {
    return this.#jobs.add(create(this.#changer, options));
  }

  /**
   * Puts a new layer on top of nodes, of all of them at one moment: who has used them uses the new layers from then on, and the nodes
   * are only read.
   *
   * @returns the nodes of the new layers, in the same order.
   * @throws TypeError for options that make no sense. LacunaError ERR_GRAPH_CONFLICT where a layer is no empty image over the node,
   * or a user needs the node itself; ERR_GRAPH_UNKNOWN, ERR_GRAPH_EXISTS, ERR_GRAPH_BUSY; what opening the layers and adding their
   * bitmaps throws. Nothing was changed then.
   */
  snapshot(options: SnapshotOptions): Promise<Node[]> {
    return snapshot(this.#changer, options);
  }

  /**
   * Does several things at one moment, or none of them: changes bitmaps, takes snapshots, replaces children, begins jobs. Every write is
   * on one side of all of it.
   *
   * @throws TypeError for actions that make no sense. What the methods of the same names throw; nothing was changed then.
   */
  async transaction(
    actions: readonly GraphAction[],
    options: TransactionOptions = {},
  ): Promise<TransactionResult> {
    return transaction(this.#changer, actions, options, (job) => void this.#jobs.add(job));
  }

  /**
   * Makes the disk of a node larger while it is in use; what is added reads as zero, and is clean in its bitmaps. Exports keep the size
   * that they began with.
   *
   * @throws RangeError where it would become smaller. LacunaError ERR_GRAPH_CONFLICT where others count on the size: a filter, a job, an
   * image over the node, an export that does not share `resize`; or where its driver or its bitmap file cannot follow;
   * ERR_GRAPH_UNKNOWN, ERR_GRAPH_BUSY; what growing the file throws.
   */
  async resize(node: string | Node, size: number): Promise<void> {
    await this.#changer.run(() => this.#changer.resize(this.#state.node(node), size));
  }

  /**
   * Opens nodes for writing too, or ends that, and gives them other children, while they are in use: one after another, and of a list
   * all or none.
   *
   * @throws TypeError for what makes no sense. LacunaError ERR_GRAPH_UNKNOWN; ERR_GRAPH_CONFLICT where somebody writes a node that would be read-only, or a node cannot be
   * opened anew; as {@link replaceChild}; what opening for writing throws.
   */
  async reopen(wanted: readonly Reopening[]): Promise<void> {
    await this.#changer.run(() => reopen(this.#changer, wanted));
  }

  /**
   * Lets the image of a node name its backing file otherwise, and changes nothing else: it is for files that were moved, or that others
   * know by another name.
   *
   * @throws LacunaError ERR_GRAPH_UNKNOWN; ERR_GRAPH_CONFLICT where the node is no image over another; what writing its header throws.
   */
  async nameBacking(node: string, filename: string): Promise<void> {
    checkGiven('Graph.nameBacking', 'filename', filename, 'how the image names its backing file');
    await this.#changer.run(() => nameBacking(this.#changer, node, filename));
  }

  /**
   * What a node answers at once about the status of a range, between two changes of the graph: those wait meanwhile.
   *
   * @throws LacunaError ERR_GRAPH_UNKNOWN; as `Device.someExtents`.
   */
  someExtents(node: string | Node, ...asked: Parameters<BlockDevice['someExtents']>) {
    return this.#changer.run(() => this.#state.node(node).device.someExtents(...asked));
  }

  /** The graph as it is now, for `JSON.stringify`. */
  toJSON(): GraphPicture {
    return picture(this.#state);
  }

  /** The graph as it is now, in the language of Graphviz. */
  toDot(): string {
    return toDot(this.toJSON());
  }

  /**
   * Stops all jobs, gives up all backups, closes all exports, when their requests have ended, and all nodes. What is added from
   * then on fails with ERR_DEVICE_CLOSED.
   */
  async close(): Promise<void> {
    await this.#changer.close();
    const failures: unknown[] = [];
    const note = (error: unknown) => void failures.push(error);
    for (const end of this.#jobs.lasting) await end().catch(note);
    for (const root of this.users) await root.close().catch(note);
    await this.#changer.run(async () => {
      const state = this.#state;
      for (;;) {
        const { view } = state;
        const top = [...state.nodes.values()].find((node) => view.to(node).length === 0);
        if (top === undefined) return;
        await state.remove(top).catch(note);
      }
    });
    if (failures.length > 0) throw failures[0];
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #checkNew(device: BlockDevice): void {
    const root = this.users.find((one) => one === device);
    if (root !== undefined) {
      throw new TypeError(`export '${root.name}' leads to a node of this graph: use that node`);
    }
    const same = this.nodes.find((node) => this.#lent.get(node) === device);
    if (same === undefined) return;
    const message = `the device ${device.name} is node '${same.name}' already: use that`;
    throw new LacunaError('ERR_GRAPH_CONFLICT', message, { device: device.name });
  }
}

async function nothing(): Promise<void> {}
