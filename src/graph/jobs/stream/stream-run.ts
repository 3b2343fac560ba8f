import type { BackingName } from '../../../block/index.js';
import type { JobControl, JobCounts } from '../../../job/index.js';
import {
  type Changer,
  type Changes,
  called,
  conflict,
  type Node,
  type NodeDescription,
  type Root,
} from '../../core/index.js';
import { SideError } from '../../filters/index.js';
import { endAtLast, endInGroup, type GroupMember, type JobEnd } from '../group/index.js';
import {
  chainBetween,
  drop,
  type Layers,
  layersBetween,
  layersDownTo,
  nameFor,
  planLayers,
  refuseHeld,
  refuseSnapshots,
} from '../layers/index.js';
import { inLanes, type Piece, piecesOf, policyFor } from '../rounds/index.js';
import type { CheckedStream, StreamJobReport } from './options.js';

/** What is there while the job works. */
interface Place {
  /** Gets what lies below it. */
  readonly top: Node;
  /** The lowest image that goes. */
  readonly bottom: Node;
  /** From the top to the bottom. */
  readonly images: readonly Node[];
  readonly filter: Node;
  readonly root: Root;
  readonly name: BackingName | null;
  readonly wasReadOnly: boolean;
}

/** One run of a stream job. */
export class StreamRun {
  readonly #changer: Changer;
  readonly #options: CheckedStream;
  #place: Place | undefined;
  #totalBytes = 0;
  #doneBytes = 0;
  #movedBytes = 0;
  #zeroedBytes = 0;
  #dropped: readonly string[] = [];

  constructor(changer: Changer, options: CheckedStream) {
    this.#changer = changer;
    this.#options = options;
  }

  counted(): JobCounts {
    return { totalBytes: this.#totalBytes, doneBytes: this.#doneBytes };
  }

  /** Opens what it needs, and tells what happens at its beginning. */
  async prepare(): Promise<Partial<Changes>> {
    this.#place = await this.#open();
    return this.#place === undefined ? {} : this.#changer.upwards([this.#place.filter]);
  }

  /** Takes back {@link prepare}; harmless where that has failed. */
  async takeBack(): Promise<void> {
    if (this.#place !== undefined) await this.#takeBack([this.#place.root], this.#place);
  }

  /** Behind the beginning. @param member with whom it ends. */
  async work(control: JobControl, member: GroupMember): Promise<StreamJobReport> {
    if (this.#place !== undefined) await this.#pull(this.#place, control, member);
    else await member.end(async () => NOTHING, control);
    const movedBytes = this.#movedBytes;
    return { movedBytes, zeroedBytes: this.#zeroedBytes, dropped: this.#dropped };
  }

  /** Undefined where nothing is to be done. */
  async #open(): Promise<Place | undefined> {
    const { state } = this.#changer;
    const { backing } = this.#options;
    const { images, base } = this.#layers();
    const [top] = images;
    const bottom = images.at(-1)!;
    if (backing !== undefined && (bottom === top || base === undefined)) {
      const why = base === undefined ? 'nothing stays below it' : 'no layer of it goes';
      throw conflict(`backing would name what is below ${called(top)}, and ${why}: leave it out`);
    }
    if (bottom === top) return undefined;
    refuseSnapshots([top]);
    refuseHeld(state, images);
    const name = base === undefined ? null : (backing ?? nameFor(state, top, base, bottom));
    return this.#insert({ top, bottom, images, name });
  }

  #layers(): Layers {
    const { state } = this.#changer;
    const { base, bottom } = this.#options;
    const node = state.node(this.#options.node);
    if (bottom !== undefined) return layersDownTo(state, node, state.node(bottom));
    return layersBetween(state, node, base === undefined ? undefined : state.node(base));
  }

  /** The filter holds the place of the job, and keeps writers and copies apart. */
  async #insert(chain: Pick<Place, 'top' | 'bottom' | 'images' | 'name'>): Promise<Place> {
    const changer = this.#changer;
    const { state } = changer;
    const { top, bottom, images, name: backing } = chain;
    const { targetIsZero, detectZeroes } = this.#options;
    const wasReadOnly = !top.writable;
    const roots: Root[] = [];
    let filter: Node | undefined;
    try {
      await changer.setWritable(top, true);
      top.driver.checkBackingName!(backing);
      const name = state.freeName(`${top.name}.stream`);
      // It goes up with the others.
      const root = await changer.enter({ name, what: 'job', node: top, writable: false });
      roots.push(root);
      filter = await changer.add(
        {
          driver: 'copy-on-read',
          'node-name': state.freeName(`${top.name}.pulled`),
          file: top.name,
          bottom: bottom.name,
          'target-is-zero': targetIsZero,
          'detect-zeroes': detectZeroes,
        } as NodeDescription,
        { writable: true, isOfJob: true },
      );
      filter.heldBy = `job '${name}'`;
      filter.heldLayers = new Set(images);
      return { ...chain, filter, root, wasReadOnly };
    } catch (error) {
      await this.#takeBack(roots, { top, filter, wasReadOnly });
      throw error;
    }
  }

  async #takeBack(
    roots: readonly Root[],
    { top, filter, wasReadOnly }: Pick<Place, 'top' | 'wasReadOnly'> & { filter: Node | undefined },
  ): Promise<void> {
    await this.#changer.takeBack(roots, filter === undefined ? [] : [filter]);
    if (wasReadOnly) await this.#changer.setWritable(top, false).catch(() => {});
  }

  async #pull(place: Place, control: JobControl, member: GroupMember): Promise<void> {
    try {
      await this.#move(place, control);
      await member.end(async () => this.#ending(place), control);
    } catch (error) {
      const leave = () => this.#changer.run(() => this.#giveUp(place));
      await endInGroup(() => endAtLast(leave, control), { error, member, control });
    }
    await endAtLast(() => this.#changer.run(() => this.#closeForWriting(place)), control);
  }

  async #move(place: Place, control: JobControl): Promise<void> {
    const { data, zero } = await planLayers(
      place.root,
      { from: 2, to: place.images.length },
      control,
    );
    if (this.#options.targetIsZero) zero.resetAll();
    this.#totalBytes = data.dirtyBytes + zero.dirtyBytes;
    try {
      for (const kind of ['zero', 'data'] as const) {
        const bits = kind === 'zero' ? zero : data;
        await inLanes(piecesOf(bits.ranges(), kind), async (piece) => {
          await this.#take(piece, place, control);
          this.#doneBytes += piece.length;
        });
      }
    } finally {
      data.free();
      zero.free();
    }
  }

  /** A piece, again and again where its policy says so. Between the attempts nothing is held. */
  async #take({ offset, length, kind }: Piece, place: Place, control: JobControl): Promise<void> {
    const { root, filter } = place;
    for (;;) {
      await control.next(kind === 'data' ? length : 0);
      try {
        const taken = await root.pass(() => filter.driver.pull!.take(offset, length));
        this.#movedBytes += taken.movedBytes;
        this.#zeroedBytes += taken.zeroedBytes;
        return;
      } catch (error) {
        if (!(error instanceof SideError)) throw error;
        if (policyFor(this.#options, error) === 'report') throw error.cause;
        await control.waitAbout(error.cause);
      }
    }
  }

  /** The image holds all: it leaves the layers below, which go. */
  #ending({ top, bottom, filter, root, name }: Place): JobEnd {
    const changer = this.#changer;
    const { state } = changer;
    const upper = state.view.backingOf(top)!;
    const dropped = chainBetween(state, upper.to, bottom);
    // As it is now: filters may have come between the two.
    const below = state.view.backingOf(bottom)?.to;
    const kept =
      below === undefined
        ? []
        : [{ edge: upper, expected: upper.to, replacement: below, unsafe: false, isSame: true }];
    const { edges, removed } = changer.downwards([filter]);
    return {
      roots: [root],
      changes: {
        edges: [...edges, ...kept],
        removed,
        ended: below === undefined ? [upper] : [],
        prepare: () => top.device.flush(),
        name: () => top.driver.nameBacking!(name),
      },
      done: async () => {
        await state.removeAll([filter]);
        this.#dropped = await drop(state, dropped);
      },
    };
  }

  async #giveUp(place: Place): Promise<void> {
    const { filter, root } = place;
    const changer = this.#changer;
    if (changer.state.nodes.get(filter.name) === filter) {
      await changer.leave(root);
      await changer.removeFilters([filter]);
    }
    await this.#closeForWriting(place);
  }

  async #closeForWriting({ top, wasReadOnly }: Place): Promise<void> {
    if (wasReadOnly) await this.#changer.setWritable(top, false);
  }
}

/** Nothing lies below the image. */
const NOTHING: JobEnd = { roots: [], changes: {}, done: async () => {} };
