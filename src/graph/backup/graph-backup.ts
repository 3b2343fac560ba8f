import type { BitmapAction } from '../../bitmap/index.js';
import { checkUnread, diskCalled } from '../../copy/view/index.js';
import { LacunaError } from '../../errors/index.js';
import type { BitmapChange, Changer, Node, Root } from '../core/index.js';
import type { BackupDisk } from './backup-disk.js';

/** @internal What is kept of a node, and by what. */
export interface KeptNode {
  readonly node: Node;
  /** The copy-before-write. */
  readonly filter: Node;
  /** Where its old content goes, where that was opened for the backup. */
  readonly scratch: Node | undefined;
  readonly view: Node;
  readonly reader: Root;
  readonly disk: BackupDisk;
  /** What is done to the bitmap when the backup was good, and when it was not. */
  readonly whenGood: readonly BitmapAction[];
  readonly whenBad: readonly BitmapAction[];
}

/**
 * A backup of nodes of a graph, all at one point in time, from its start until it has been finished, or given up. It has the shape of
 * the `BackupSession` of a running QEMU.
 *
 *     const backup = await graph.openBackup({ nodes: ['disk'], bitmap: 'nightly' });
 *     for (const disk of backup.disks) {
 *       for await (const { offset, length, status, data } of disk.extents()) ...
 *     }
 *     await backup.finish(async () => writeManifestDurably());
 *
 * The bitmap goes on recording in a successor. When the backup is finished the bitmap tells of what was written since its start;
 * when it is given up, also of what was dirty before: nothing is lost either way.
 */
export class GraphBackup implements AsyncDisposable {
  /** The nodes. */
  readonly disks: readonly BackupDisk[];
  readonly #changer: Changer;
  readonly #kept: readonly KeptNode[];
  readonly #control: AbortController;
  #viewEnd: Promise<void> | undefined;
  #wasSound = false;
  #isEnded = false;
  /** @internal Resolves when it is over. */
  readonly ended: Promise<void>;
  #tellEnd: () => void = () => {};

  /** @internal */
  constructor(changer: Changer, kept: readonly KeptNode[], control: AbortController) {
    this.disks = kept.map(({ disk }) => disk);
    this.#changer = changer;
    this.#kept = kept;
    this.#control = control;
    this.ended = new Promise((resolve) => {
      this.#tellEnd = resolve;
    });
  }

  /** Fires when the backup is given up. */
  get signal(): AbortSignal {
    return this.#control.signal;
  }

  /** Why the view of a disk is lost; undefined while all are sound. */
  get lost(): LacunaError | undefined {
    if (this.#wasSound) return undefined;
    return this.#kept.map(({ filter }) => filter.driver.snapshot?.broken).find((one) => one);
  }

  /**
   * A disk by the name of its node.
   *
   * @throws TypeError where the backup has none of that name.
   */
  disk(name: string): BackupDisk {
    return diskCalled(this.disks, name);
  }

  /** Throws unless everything that was read until now was of the point in time. @throws LacunaError ERR_VIEW_LOST */
  async check(): Promise<void> {
    const { lost } = this;
    if (lost !== undefined) throw lost;
  }

  /**
   * Checks that everything that was read was of the point in time, and ends the view: nothing can be read any more, and nodes are
   * written as before. What is left is to make the backup durable, and then {@link finish}, which calls this where it was not called.
   *
   * @throws TypeError while a disk is being read, or after the end. LacunaError ERR_VIEW_LOST: nothing that was read counts;
   * ERR_GRAPH_BUSY: the view is still there, and this may be called again.
   */
  async accept(): Promise<void> {
    this.#checkOpen('accept');
    checkUnread(this.disks);
    await this.check();
    this.#wasSound = true;
    await this.#endView();
  }

  /**
   * Ends a backup whose data has been read and stored. The view is checked and ended; then `record` must make durable that the backup
   * exists; then the bitmaps tell of what was written since its start.
   *
   * When the check fails, or `record` does, the backup is not ended: call {@link fail}.
   *
   * @throws TypeError while a disk is being read, or after the end. LacunaError ERR_VIEW_LOST, ERR_GRAPH_BUSY. What `record` throws.
   */
  async finish(record: () => Promise<void> | void): Promise<void> {
    this.#checkOpen('finish');
    if (typeof record !== 'function') {
      throw new TypeError('finish needs a record: a function that makes the backup durable');
    }
    if (!this.#wasSound) await this.accept();
    await this.#endView();
    await record();
    await this.#end(this.#kept.map(({ node, whenGood }) => ({ node, actions: whenGood })));
  }

  /**
   * Gives the backup up: the view is ended, and the bitmaps tell of what was dirty before, and of what was written since. Bitmaps
   * that were added by the backup go. Harmless after the end.
   *
   * @throws LacunaError ERR_GRAPH_BUSY: it may be called again.
   */
  async fail(): Promise<void> {
    if (this.#isEnded) return;
    this.#control.abort(new LacunaError('ERR_ABORTED', 'Aborted: the backup was given up'));
    await this.#endView();
    await this.#end(this.#kept.map(({ node, whenBad }) => ({ node, actions: whenBad })));
  }

  /** As {@link fail}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.fail();
  }

  async #end(bitmaps: readonly BitmapChange[]): Promise<void> {
    await this.#changer.run(() => this.#changer.change({ bitmaps }));
    this.#isEnded = true;
    this.#tellEnd();
    await Promise.all(this.disks.map((disk) => disk.free()));
  }

  #endView(): Promise<void> {
    this.#viewEnd ??= this.#takeDown().catch((error) => {
      this.#viewEnd = undefined;
      throw error;
    });
    return this.#viewEnd;
  }

  async #takeDown(): Promise<void> {
    const kept = this.#kept;
    await Promise.all(kept.map(({ reader }) => reader.close()));
    await this.#changer.run(async () => {
      const { state } = this.#changer;
      await state.removeAll(kept.map(({ view }) => view));
      const there = kept.filter(({ filter }) => state.nodes.get(filter.name) === filter);
      await this.#changer.removeFilters(
        there.map(({ filter }) => filter),
        { unused: kept.flatMap(({ scratch }) => scratch ?? []) },
      );
    });
  }

  #checkOpen(what: string): void {
    if (this.#isEnded) throw new TypeError(`the backup has ended: ${what} comes too late`);
  }
}
