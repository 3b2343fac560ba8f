import type { BackingName } from '../../../block/index.js';
import type { JobControl, JobCounts } from '../../../job/index.js';
import type { Changer, Node, NodeDescription, Root } from '../../core/index.js';
import { PullError } from '../../filters/index.js';
import {
  drop,
  endAtLast,
  layersBetween,
  movePieces,
  nameFor,
  type Piece,
  type PieceFailure,
  planLayers,
  refuseSnapshots,
} from '../layers/index.js';
import type { StreamJobOptions, StreamJobReport } from './options.js';

/** What is there while the job works. */
interface Place {
  /** Gets what lies below it. */
  readonly top: Node;
  /** The lowest image that goes. */
  readonly bottom: Node;
  /** Images from the top to the bottom. */
  readonly count: number;
  readonly filter: Node;
  readonly root: Root;
  readonly name: BackingName | null;
  readonly wasReadOnly: boolean;
}

/** One run of a stream job. */
export class StreamRun {
  readonly #changer: Changer;
  readonly #options: StreamJobOptions;
  #place: Place | undefined;
  #totalBytes = 0;
  #doneBytes = 0;
  #movedBytes = 0;
  #zeroedBytes = 0;
  #dropped: readonly string[] = [];

  constructor(changer: Changer, options: StreamJobOptions) {
    this.#changer = changer;
    this.#options = options;
  }

  counted(): JobCounts {
    return { totalBytes: this.#totalBytes, doneBytes: this.#doneBytes };
  }

  async work(control: JobControl): Promise<StreamJobReport> {
    this.#place = await this.#changer.run(() => this.#begin());
    if (this.#place !== undefined) await this.#pull(this.#place, control);
    const movedBytes = this.#movedBytes;
    return { movedBytes, zeroedBytes: this.#zeroedBytes, dropped: this.#dropped };
  }

  /** Undefined where nothing is to be done. */
  async #begin(): Promise<Place | undefined> {
    const { state } = this.#changer;
    const { view } = state;
    const { node, base, bottom: lowest, backing } = this.#options;
    const below = base ?? this.#belowOf(lowest);
    const layers = layersBetween(
      state,
      state.node(node),
      below === undefined ? undefined : state.node(below),
    );
    const [top] = layers.images;
    const bottom = layers.images.at(-1)!;
    if (bottom === top) return undefined;
    refuseSnapshots([top]);
    const lowerEdge = view.backingOf(bottom);
    const name =
      layers.base === undefined || lowerEdge === undefined
        ? null
        : (backing ?? nameFor(state, top, layers.base, bottom));
    return this.#insert({ top, bottom, count: layers.images.length, name });
  }

  #belowOf(lowest: string | undefined): string | undefined {
    if (lowest === undefined) return undefined;
    const { view } = this.#changer.state;
    const image = view.unfiltered(this.#changer.state.node(lowest));
    return view.backingOf(image)?.to.name;
  }

  /** The filter holds the place of the job, and keeps writers and copies apart. */
  async #insert(chain: Pick<Place, 'top' | 'bottom' | 'count' | 'name'>): Promise<Place> {
    const changer = this.#changer;
    const { state } = changer;
    const { top, bottom } = chain;
    const wasReadOnly = !top.writable;
    const added: Node[] = [];
    const roots: Root[] = [];
    try {
      await changer.setWritable(top, true);
      const filter = await changer.add(
        {
          driver: 'copy-on-read',
          'node-name': state.freeName(`${top.name}.pulled`),
          file: top.name,
          bottom: bottom.name,
        } as NodeDescription,
        { writable: true },
      );
      added.push(filter);
      const name = state.freeName(`${top.name}.stream`);
      filter.heldBy = `job '${name}'`;
      await changer.moveUp([filter]);
      const root = changer.enter({ name, what: 'job', node: filter, writable: false });
      roots.push(root);
      return { ...chain, filter, root, wasReadOnly };
    } catch (error) {
      await changer.takeBack(roots, added);
      if (wasReadOnly) await changer.setWritable(top, false).catch(() => {});
      throw error;
    }
  }

  async #pull(place: Place, control: JobControl): Promise<void> {
    let failure: { error: unknown } | undefined;
    try {
      await this.#move(place, control);
    } catch (error) {
      failure = { error };
    }
    if (failure === undefined) {
      try {
        await endAtLast(control, () => this.#changer.run(() => this.#finish(place)));
      } catch (error) {
        failure = { error };
      }
    }
    if (failure === undefined) return;
    await endAtLast(control, () => this.#changer.run(() => this.#giveUp(place)));
    throw failure.error;
  }

  async #move({ root, filter, count }: Place, control: JobControl): Promise<void> {
    const plan = await planLayers(root, { from: 2, to: count }, control);
    this.#totalBytes = plan.totalBytes;
    try {
      await movePieces(plan.pieces(), control, {
        take: async ({ offset, length }: Piece) => {
          const taken = await root.pass(() => filter.driver.pull!.take(offset, length));
          this.#movedBytes += taken.movedBytes;
          this.#zeroedBytes += taken.zeroedBytes;
        },
        failureOf: (error) => this.#failureOf(error),
        done: ({ length }) => {
          this.#doneBytes += length;
        },
      });
    } finally {
      plan.free();
    }
  }

  #failureOf(error: unknown): PieceFailure {
    if (!(error instanceof PullError)) return { error: error as Error, policy: 'report' };
    const { onSourceError = 'report', onTargetError = 'report' } = this.#options;
    const policy = error.side === 'source' ? onSourceError : onTargetError;
    return { error: error.cause as Error, policy };
  }

  /** The image holds all: it leaves the layers below, which go. */
  async #finish(place: Place): Promise<void> {
    const changer = this.#changer;
    const { state } = changer;
    const { top, bottom, filter, name } = place;
    const upper = state.view.backingOf(top)!;
    const dropped = upper.to;
    // As it is now: filters may have come between the two.
    const below = state.view.backingOf(bottom)?.to;
    const kept =
      below === undefined
        ? []
        : [{ edge: upper, expected: dropped, replacement: below, unsafe: false, isSame: true }];
    await changer.leave(place.root);
    await changer.removeFilters([filter], {
      edges: kept,
      ended: below === undefined ? [upper] : [],
      prepare: async () => {
        await top.device.flush();
        await top.driver.nameBacking!(name);
      },
    });
    this.#dropped = await drop(state, dropped, bottom);
    if (place.wasReadOnly) await changer.setWritable(top, false);
  }

  async #giveUp({ filter, root, top, wasReadOnly }: Place): Promise<void> {
    const changer = this.#changer;
    if (changer.state.nodes.get(filter.name) === filter) {
      await changer.leave(root);
      await changer.removeFilters([filter]);
    }
    if (wasReadOnly) await changer.setWritable(top, false);
  }
}
