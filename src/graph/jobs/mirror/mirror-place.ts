import type { Bitmap, BitmapAction } from '../../../bitmap/index.js';
import type { CopyMode, DiskCopy } from '../../../block/index.js';
import type { JobControl } from '../../../job/index.js';
import { orAborted } from '../../../util/index.js';
import {
  type BitmapChange,
  type Changer,
  type Changes,
  called,
  conflict,
  type Node,
  type NodeDescription,
  type Root,
} from '../../core/index.js';
import { type Ending, endAtLast, isBusy, type JobEnd } from '../group/index.js';
import type { LastRound } from '../rounds/index.js';
import { carried, checkCarried } from './carried-bitmaps.js';
import type { CheckedMirror } from './options.js';

/** What a mirror has in its graph. */
interface Parts {
  readonly node: Node;
  readonly target: Node;
  readonly filter: Node;
  readonly root: Root;
}

/** The place of a mirror in its graph: how it comes in, and how it goes. */
export class MirrorPlace {
  /** Where the job reads status, and passes for each piece. */
  readonly root: Root;
  readonly copy: DiskCopy;
  readonly #changer: Changer;
  readonly #options: CheckedMirror;
  readonly #node: Node;
  readonly #filter: Node;
  readonly #opened: Node | undefined;
  #target: Node;
  #carried: readonly string[] = [];
  #isPlanned = false;
  #isGivenUp = false;
  #isGone = false;

  private constructor(changer: Changer, options: CheckedMirror, parts: Parts) {
    this.#changer = changer;
    this.#options = options;
    this.#node = parts.node;
    this.#filter = parts.filter;
    this.#target = parts.target;
    this.#opened = typeof options.target === 'string' ? undefined : parts.target;
    this.root = parts.root;
    this.copy = parts.filter.driver.diskCopy!;
    this.copy.isRecorded = options.targetRecords === 'always';
  }

  /** Opens what a mirror needs. Where that fails, nothing stays. It has the turn. */
  static async open(changer: Changer, options: CheckedMirror): Promise<MirrorPlace> {
    const opened: Node[] = [];
    const roots: Root[] = [];
    try {
      const parts = await open(changer, options, opened);
      roots.push(parts.root);
      const { bitmap } = options;
      if (bitmap !== undefined) await parts.node.log.bitmaps.load(bitmap);
      return new MirrorPlace(changer, options, parts);
    } catch (error) {
      await changer.takeBack(roots, opened.reverse());
      throw error;
    }
  }

  /** What lets all users of the node go through the filter. */
  get beginning(): Partial<Changes> {
    return {
      ...this.#changer.upwards([this.#filter]),
      bitmaps: [
        ...this.#bitmapChanges([{ type: 'freeze', name: this.#options.bitmap! }]),
        // Stored bitmaps are marked before the first write that they do not note.
        ...(this.copy.isRecorded ? [] : this.#ofTargets(() => {})),
      ],
    };
  }

  /** Takes back {@link open}, where the place was not entered. */
  takeBack(): Promise<void> {
    const opened = this.#opened === undefined ? [] : [this.#opened];
    return this.#changer.takeBack([this.root], [this.#filter, ...opened]);
  }

  /** The node of the target. */
  get target(): Node {
    return this.#target;
  }

  /** The names of the bitmaps that the target has got. */
  get carried(): readonly string[] {
    return this.#carried;
  }

  /**
   * Makes durable what others have written to the target, before the first write of the job: where its connection is lost later, the
   * job writes its own again, and says that nothing is missing then.
   */
  async flushTarget(signal: AbortSignal): Promise<void> {
    if (this.#opened === undefined) await orAborted(this.#target.device.flush(), signal);
  }

  /** The bitmaps of the target note from now on what is written there. */
  async recordTarget(control: JobControl): Promise<void> {
    if (this.copy.isRecorded) return;
    const bitmaps = this.#ofTargets(() => {
      this.copy.isRecorded = true;
    });
    await endAtLast(() => this.#changer.run(() => this.#changer.change({ bitmaps })), control);
    // Else it is to end, and was told so.
    control.throwIfEnding();
  }

  /** A change of the bitmaps of the target's nodes, at a moment at which nothing is in flight. */
  #ofTargets(now: () => void): BitmapChange[] {
    const nodes = this.#changer.path(this.#changer.state.edge(this.#filter, 'target').to);
    return nodes.map((node) => ({
      node,
      actions: [],
      now: () => {
        now();
        return [];
      },
    }));
  }

  /** How writes get to the target that begin from now on. */
  setMode(mode: CopyMode): void {
    if (!this.#isGivenUp) this.copy.mode = mode;
  }

  /** Bytes that were written and are not copied yet, beside those of the round that goes on. */
  get dirtyBytes(): number {
    // Behind the end there are no bits any more, while nodes are still being closed.
    return this.#isGone ? 0 : this.copy.dirtyBytes;
  }

  /** Whether the users go another way again. */
  get isGone(): boolean {
    return this.#isGone;
  }

  /** It was found out what has to be copied: what is not copied yet is known from now on. */
  planned(): void {
    this.#isPlanned = true;
  }

  /** What was dirty at the start; the caller frees it. */
  frozen(): Bitmap {
    return this.#node.log.bitmaps.get(this.#options.bitmap!).snapshot();
  }

  /** @throws where it is not known what differs. */
  checkSound(): void {
    if (this.copy.broken !== undefined) throw this.copy.broken;
  }

  /** How the target comes into use, or everybody uses the node again, and the target is a copy of that moment. */
  ending(ending: Ending, finish: LastRound): Promise<JobEnd> {
    return ending === 'complete' ? this.#completing(finish) : this.#cancelling(finish);
  }

  async #completing(finish: LastRound): Promise<JobEnd> {
    const changer = this.#changer;
    const bitmaps = this.#bitmapChanges(this.#whenGood(finish));
    const target = this.#below('target');
    this.#target = changer.state.view.unfiltered(target);
    const { names, changes } =
      this.#options.bitmaps === 'none'
        ? { names: [], changes: [] }
        : await carried(changer.path(this.#below('file')), this.#target, finish.unread);
    return this.#end(finish, {
      changes: {
        ...changer.pivoting(this.#filter, target, this.root),
        bitmaps: [...bitmaps, ...changes],
      },
      done: async () => {
        this.#carried = names;
        await this.#leave();
      },
    });
  }

  async #cancelling(finish: LastRound): Promise<JobEnd> {
    return this.#end(finish, {
      changes: {
        ...this.#changer.downwards([this.#filter]),
        bitmaps: this.#bitmapChanges(this.#whenGood(finish)),
      },
      done: () => this.#leave(this.#opened),
    });
  }

  #end({ work }: LastRound, { changes, done }: Pick<JobEnd, 'changes' | 'done'>): JobEnd {
    return {
      roots: [],
      changes: { ...changes, prepare: work },
      done: async () => {
        this.#isGone = true;
        await done();
      },
    };
  }

  /** The job has failed: everybody uses the node again, and the target is nothing. */
  async giveUp(control: JobControl): Promise<void> {
    if (this.#isGone) return;
    this.#isGivenUp = true;
    this.copy.mode = 'background';
    // Nobody else waits for the target, which may hang: a change that waited for it would hold up the guests.
    await this.#filter.driver.settled!();
    // What is not durable then is dirty.
    if (this.#options.bitmapMode === 'always') await this.copy.flush().catch(() => {});
    await endAtLast(() => this.#changer.run(() => this.#giveUp()), control);
  }

  async #giveUp(): Promise<void> {
    const remains: Bitmap[] = [];
    let failure: unknown;
    try {
      const bitmaps = this.#bitmapChanges(this.#whenFailed(remains));
      await this.#changer.moveDown([this.#filter], { bitmaps });
    } catch (error) {
      if (isBusy(error)) throw error;
      // Nobody goes through the filter for ever because of a bitmap: that keeps its successor, and can be reclaimed.
      failure = error;
      await this.#changer.moveDown([this.#filter]);
    } finally {
      for (const bits of remains) bits.free();
    }
    this.#isGone = true;
    await this.#leave(this.#opened);
    if (failure !== undefined) throw failure;
  }

  /** What the filter leads to now: other jobs put other nodes there. */
  #below(key: 'file' | 'target'): Node {
    return this.#changer.state.edge(this.#filter, key).to;
  }

  /** @param opened is closed too, unless others use it. */
  async #leave(opened?: Node): Promise<void> {
    const { state } = this.#changer;
    await this.#changer.leave(this.root);
    await state.removeAll([this.#filter]);
    if (opened !== undefined && state.view.to(opened).length === 0) await state.removeAll([opened]);
  }

  /** What is equal at the end is not dirty. */
  #whenGood({ unread }: LastRound): BitmapAction[] {
    const { bitmap: name = '', bitmapMode } = this.#options;
    if (bitmapMode === 'never') return [{ type: 'reclaim', name }];
    return [
      { type: 'abdicate', name },
      { type: 'clear', name },
      { type: 'merge', target: name, sources: [unread] },
    ];
  }

  /** @param remains gets bits that the caller frees. */
  #whenFailed(remains: Bitmap[]): BitmapAction[] {
    const { bitmap: name = '', bitmapMode } = this.#options;
    const isKnown = this.#isPlanned && this.copy.broken === undefined;
    if (bitmapMode !== 'always' || !isKnown) return [{ type: 'reclaim', name }];
    const rest = this.copy.copyDirty();
    remains.push(rest);
    return [
      { type: 'abdicate', name },
      { type: 'merge', target: name, sources: [rest] },
    ];
  }

  #bitmapChanges(actions: BitmapAction[]): BitmapChange[] {
    return this.#options.bitmap === undefined ? [] : [{ node: this.#node, actions }];
  }
}

/** @param opened gets every node that was opened. */
async function open(changer: Changer, options: CheckedMirror, opened: Node[]): Promise<Parts> {
  const { state } = changer;
  const { node: name, target: wanted } = options;
  const node = state.node(name);
  if (node.grows) {
    throw conflict(`${called(node)} is the file of an image, which grows: mirror the image`);
  }
  const nameFor = (what: string) => state.freeName(`${name}.${what}`);
  const add = async (description: object, isOfJob: boolean): Promise<Node> => {
    const added = await changer.add(description as NodeDescription, { writable: true, isOfJob });
    opened.push(added);
    return added;
  };
  const target =
    typeof wanted === 'string'
      ? state.node(wanted)
      : await add({ 'node-name': nameFor('target'), ...wanted }, false);
  if (options.bitmaps === 'recording') checkCarried(changer.path(node), target);
  const filter = await add(
    {
      driver: 'mirror',
      'node-name': nameFor('mirror'),
      file: name,
      target: target.name,
      'target-is-zero': options.targetIsZero,
      'detect-zeroes': options.detectZeroes,
      'write-timeout': options.writeTimeout,
    },
    true,
  );
  const entering = { name: nameFor('mirror-job'), what: 'job', node, writable: false };
  return { node, target, filter, root: await changer.enter(entering) };
}
