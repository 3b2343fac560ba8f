import type { DiskCopy } from '../../../block/index.js';
import type { JobControl } from '../../../job/index.js';
import { orAborted } from '../../../util/index.js';
import type { Changer, Changes, Node, NodeDescription, Root } from '../../core/index.js';
import { onSide } from '../../filters/index.js';
import { type Ending, endAlone, endAtLast, type JobEnd } from '../group/index.js';
import { chainBetween, drop } from '../layers/index.js';
import type { LastRound } from '../rounds/index.js';
import {
  type ChainToCommit,
  chainToCommit,
  checkOverlays,
  type Overlay,
} from './chain-to-commit.js';
import { type CommittedBitmaps, committedBitmaps } from './committed-bitmaps.js';
import type { CheckedCommit } from './options.js';

/** What a commit has in its graph. */
interface Parts {
  readonly chain: ChainToCommit;
  readonly filter: Node;
  readonly root: Root;
  /** Nodes that were opened for writing, and are for reading only again at the end. */
  readonly opened: readonly Node[];
}

type Prepare = () => Promise<void>;

/** The place of a commit in its graph: how it comes in, and how it goes. */
export class CommitPlace {
  readonly chain: ChainToCommit;
  /** Where the job reads status, and passes for each piece. */
  readonly root: Root;
  readonly copy: DiskCopy;
  readonly #changer: Changer;
  readonly #filter: Node;
  readonly #opened: readonly Node[];
  #carried: readonly string[] = [];
  #warnings: readonly string[] = [];
  #dropped: readonly string[] = [];
  #isGone = false;

  private constructor(changer: Changer, { chain, filter, root, opened }: Parts) {
    this.#changer = changer;
    this.chain = chain;
    this.root = root;
    this.copy = filter.driver.diskCopy!;
    this.#filter = filter;
    this.#opened = opened;
  }

  /** Opens what a commit needs. Where that fails, nothing stays. It has the turn. */
  static async open(changer: Changer, options: CheckedCommit): Promise<CommitPlace> {
    const chain = chainToCommit(changer.state, options);
    const opened: Node[] = [];
    try {
      for (const node of [chain.base, ...chain.overlays.map((overlay) => overlay.node)]) {
        if (node.writable) continue;
        await changer.setWritable(node, true);
        opened.push(node);
      }
      for (const { node, name } of chain.overlays) node.driver.checkBackingName!(name);
      return new CommitPlace(changer, { ...(await insert(changer, chain, options)), opened });
    } catch (error) {
      await closeForWriting(changer, opened).catch(() => {});
      throw error;
    }
  }

  /** What lets all users of the top go through the filter. */
  get beginning(): Partial<Changes> {
    return this.#changer.upwards([this.#filter]);
  }

  /** Takes back {@link open}, where the place was not entered. */
  async takeBack(): Promise<void> {
    await takeBack(this.#changer, this.chain, { roots: [this.root], filter: this.#filter });
    await closeForWriting(this.#changer, this.#opened).catch(() => {});
  }

  /** The names of the bitmaps that the base has got. */
  get carried(): readonly string[] {
    return this.#carried;
  }

  get warnings(): readonly string[] {
    return this.#warnings;
  }

  get dropped(): readonly string[] {
    return this.#dropped;
  }

  /** Whether the users go another way again. */
  get isGone(): boolean {
    return this.#isGone;
  }

  /** @throws where it is not known what differs. */
  checkSound(): void {
    if (this.copy.broken !== undefined) throw this.copy.broken;
  }

  /** Hides what the base holds behind the end of a shorter top, where images above would see it. */
  async hideTail(control: JobControl): Promise<number> {
    const { images, base, seenBytes } = this.chain;
    const end = Math.min(base.size, seenBytes);
    const start = images[0].size;
    for (let at = start; at < end; at += TAIL_PIECE) {
      await control.next();
      const length = Math.min(TAIL_PIECE, end - at);
      await onSide(
        'target',
        this.root.pass(() => base.device.zero(at, length)),
      );
    }
    return Math.max(0, end - start);
  }

  /**
   * Makes durable what others have written to the base, before the first write of the job: where its connection is lost later, the job
   * writes its own again, and says that nothing is missing then.
   */
  async flushBase(signal: AbortSignal): Promise<void> {
    const { base } = this.chain;
    if (!this.#opened.includes(base)) await orAborted(base.device.flush(), signal);
  }

  /** Makes durable what was written to the base. */
  flush(): Promise<void> {
    return this.root.pass(() => this.copy.flush());
  }

  /** How the base comes into use, or everybody uses the images as before. To be called in a turn. */
  async ending(ending: Ending, { work }: LastRound): Promise<JobEnd> {
    return ending === 'complete' ? this.#completing(work) : this.#leaving(work);
  }

  async #completing(work: Prepare): Promise<JobEnd> {
    const { images, base } = this.chain;
    checkOverlays(this.#changer.state, this.#filter, this.chain);
    const bitmaps = await committedBitmaps(images, base);
    try {
      return {
        ...(await this.#pivoting(bitmaps, work)),
        roots: [],
        free: () => bitmaps.free(),
      };
    } catch (error) {
      bitmaps.free();
      throw error;
    }
  }

  /** The job has failed: everybody uses the images as before; what was put into the base was shown already. */
  async giveUp(control: JobControl): Promise<void> {
    if (this.#isGone) return;
    await endAtLast(() => this.#changer.run(() => this.#giveUp()), control);
  }

  async #giveUp(): Promise<void> {
    await endAlone(this.#changer, async () => this.#leaving());
  }

  #leaving(prepare?: Prepare): JobEnd {
    return {
      roots: [],
      changes: { ...this.#changer.downwards([this.#filter]), ...(prepare && { prepare }) },
      refused: this.#letOthersIn(),
      done: async () => {
        this.#isGone = true;
        await this.#leave(false);
      },
    };
  }

  async #pivoting(bitmaps: CommittedBitmaps, work: Prepare): Promise<Omit<JobEnd, 'roots'>> {
    const { images, base, overlays } = this.chain;
    const changer = this.#changer;
    // Filters may have come above the base, and are kept where they are as large as what they show then.
    const above = changer.state.view.backingOf(images.at(-1)!)!.to;
    const target = above.size === base.size ? above : base;
    const between = changer.path(above).filter((filter) => filter !== base);
    for (const filter of between) await filter.log.prepareDirtyAll();
    const refused = this.#letOthersIn();
    try {
      const pivot = changer.pivoting(this.#filter, target, this.root);
      return {
        changes: {
          ...pivot,
          bitmaps: bitmaps.changes,
          prepare: async () => {
            await work();
            await bitmaps.gather();
            await base.device.flush();
          },
          name: (isOver) => nameBase(overlays, isOver),
        },
        refused,
        done: async () => {
          // They have not seen what was written to the base below them.
          for (const filter of between) filter.log.dirtyAll();
          this.#isGone = true;
          this.#carried = bitmaps.names;
          this.#warnings = bitmaps.warnings;
          await this.#leave(true);
        },
      };
    } catch (error) {
      refused();
      throw error;
    }
  }

  /** Lets others come to use the layers again, by a change. @returns takes that back. */
  #letOthersIn(): () => void {
    const by = this.chain.base.movedBy;
    keep(this.chain, this.#filter, undefined);
    return () => keep(this.chain, this.#filter, by);
  }

  async #leave(isDone: boolean): Promise<void> {
    const changer = this.#changer;
    const { images, path } = this.chain;
    const { state } = changer;
    const chain = chainBetween(state, images[0], images.at(-1)!);
    await changer.leave(this.root);
    await state.removeAll([this.#filter]);
    if (isDone) this.#dropped = await drop(state, chain);
    for (const edge of path) edge.movedBy = undefined;
    await closeForWriting(changer, isDone ? this.#unwritten : this.#opened);
  }

  /** Who has written the top writes the base from then on. */
  get #unwritten(): Node[] {
    const { base, isActive } = this.chain;
    return this.#opened.filter((node) => node !== base || !isActive);
  }
}

/** Makes the images above name the base. */
async function nameBase(overlays: readonly Overlay[], isOver: () => boolean): Promise<void> {
  for (const { node, name } of overlays) {
    if (isOver()) return;
    await node.device.flush();
    if (isOver()) return;
    await node.driver.nameBacking!(name);
  }
}

/** Of what is hidden, which costs next to nothing. */
const TAIL_PIECE = 16 * 1024 * 1024;

async function closeForWriting(changer: Changer, nodes: readonly Node[]): Promise<void> {
  for (const node of nodes) await changer.setWritable(node, false);
}

/** Says who alone uses the layers, or that nobody does. */
function keep({ nodes }: ChainToCommit, filter: Node | undefined, by: string | undefined): void {
  if (filter !== undefined) filter.heldBy = by;
  for (const node of nodes) node.movedBy = by;
}

/** Opens a filter that holds the place, and keeps everybody else from what changes below. */
async function insert(
  changer: Changer,
  chain: ChainToCommit,
  { targetIsZero, detectZeroes }: CheckedCommit,
): Promise<Omit<Parts, 'opened'>> {
  const { state } = changer;
  const { images, base, path, isActive } = chain;
  const [top] = images;
  const roots: Root[] = [];
  let filter: Node | undefined;
  const name = state.freeName(`${top.name}.commit`);
  const by = `job '${name}'`;
  try {
    await changer.grow(base, top.size);
    // It goes up with the others.
    const root = await changer.enter({ name, what: 'job', node: top, writable: false });
    roots.push(root);
    for (const edge of path) edge.movedBy = by;
    filter = await changer.add(
      {
        driver: 'mirror',
        'node-name': state.freeName(`${top.name}.committed`),
        file: top.name,
        target: base.name,
        'target-is-zero': targetIsZero,
        'detect-zeroes': detectZeroes,
      } as unknown as NodeDescription,
      { writable: isActive, isOfJob: true },
    );
    for (const edge of state.view.from(filter)) edge.movedBy = by;
    filter.heldLayers = new Set([...images, base]);
    keep(chain, filter, by);
    return { chain, filter, root };
  } catch (error) {
    await takeBack(changer, chain, { roots, filter });
    throw error;
  }
}

async function takeBack(
  changer: Changer,
  chain: ChainToCommit,
  { roots, filter }: { roots: readonly Root[]; filter: Node | undefined },
): Promise<void> {
  keep(chain, undefined, undefined);
  await changer.takeBack(roots, filter === undefined ? [] : [filter]);
  for (const edge of chain.path) edge.movedBy = undefined;
}
