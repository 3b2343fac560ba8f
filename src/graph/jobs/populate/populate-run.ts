import type { Bitmap, BitmapAction, BitmapUse, WriteWatch } from '../../../bitmap/index.js';
import { LacunaError } from '../../../errors/index.js';
import type { JobControl, JobCounts } from '../../../job/index.js';
import type { BitmapChange, Changer, Changes, Node, Root } from '../../core/index.js';
import { endInGroup, type GroupMember, type JobEnd } from '../group/index.js';
import { Gathered } from './gathered.js';
import type { CheckedPopulate, PopulateJobReport } from './options.js';

/** A bitmap that is populated. */
interface Target {
  readonly node: Node;
  readonly name: string;
  readonly granularity: number;
  readonly isRecording: boolean;
}

/**
 * One run of a populate job. What counts is gathered apart; the targets are changed in the end, at one moment, at which nothing is in
 * flight. Until then they are as they were, and nobody else changes them.
 */
export class PopulateRun {
  readonly #changer: Changer;
  readonly #options: CheckedPopulate;
  readonly #roots = new Map<Node, Root>();
  readonly #targets: Target[] = [];
  readonly #uses: BitmapUse[] = [];
  /** What was written since it began: of the targets' own nodes, and of all nodes whose writes change what is asked. */
  readonly #watches = new Map<Node, WriteWatch>();
  #gathered: Gathered | undefined;
  #totalBytes = 0;
  #doneBytes = 0;

  constructor(changer: Changer, options: CheckedPopulate) {
    this.#changer = changer;
    this.#options = options;
  }

  counted(): JobCounts {
    return { totalBytes: this.#totalBytes, doneBytes: this.#doneBytes };
  }

  /** @param member with whom it ends. */
  async work(control: JobControl, member: GroupMember): Promise<PopulateJobReport> {
    let report: PopulateJobReport;
    try {
      report = await this.#work(control, member);
    } catch (error) {
      // What cannot be let go of says less than why it failed.
      await this.end().catch(() => {});
      throw error;
    }
    await this.end();
    return report;
  }

  async #work(control: JobControl, member: GroupMember): Promise<PopulateJobReport> {
    try {
      const warnings = await this.#gather(control);
      await control.next();
      await member.end(async () => this.#ending(), control, false);
      this.#doneBytes = this.#totalBytes;
      return { warnings };
    } catch (error) {
      return await endInGroup(async () => {}, { error, member, control });
    }
  }

  /** Lets go of everything. */
  async end(): Promise<void> {
    this.#letGo();
    await Promise.all([...this.#roots.values()].map((root) => root.close()));
  }

  /** Takes back {@link prepare}, in the same turn. */
  async takeBack(): Promise<void> {
    this.#letGo();
    await this.#changer.takeBack([...this.#roots.values()], []);
  }

  #letGo(): void {
    for (const use of this.#uses) use.release();
    for (const watch of this.#watches.values()) watch.free();
    this.#watches.clear();
    this.#gathered?.free();
    this.#gathered = undefined;
  }

  /** Takes the targets, all or none, and tells how what is written is watched from the beginning on. */
  async prepare(): Promise<Partial<Changes>> {
    const { state } = this.#changer;
    const { sources, targets, from } = this.#options;
    for (const { node } of [...sources, ...targets]) await this.#enter(state.node(node));
    for (const { node, bitmap } of targets) this.#acquire(state.node(node), bitmap);
    const [{ node: first }] = this.#targets;
    for (const node of this.#roots.keys()) checkSize(node, first);
    const finest = Math.min(...this.#targets.map(({ granularity }) => granularity));
    this.#gathered = new Gathered(first.size, finest, first.log.bitmaps.arena);
    for (const { node, bitmap } of sources) {
      if (bitmap !== undefined) await state.node(node).bitmap(bitmap);
    }
    const isAsked = from === 'allocation' || from === 'data';
    this.#totalBytes = isAsked ? first.size * sources.length : first.size;
    const asked = isAsked ? sources.map(({ node }) => state.node(node)) : [];
    const watched = new Set([
      ...asked.flatMap((node) => this.#contentOf(node)),
      ...this.#targets.map(({ node }) => node),
    ]);
    // A write that is in flight now is in what is asked, or in what is watched.
    const bitmaps = [...watched].map((node) => ({
      node,
      actions: [],
      now: () => {
        this.#watches.set(node, node.log.bitmaps.watch(finest));
        return [];
      },
    }));
    return { bitmaps };
  }

  async #enter(node: Node): Promise<void> {
    if (this.#roots.has(node)) return;
    const name = this.#changer.state.freeName(`${node.name}.populate`);
    const entering = { name, what: 'job', node, writable: false, isPinned: true };
    this.#roots.set(node, await this.#changer.enter(entering));
  }

  #acquire(node: Node, name: string): void {
    const { bitmaps } = node.log;
    this.#uses.push(bitmaps.acquire(name, 'a populate', { changes: true }));
    const { granularity, recording } = bitmaps.get(name).info;
    this.#targets.push({ node, name, granularity, isRecording: recording });
  }

  /** A node, and where it is a filter, the nodes below it: who writes there changes what it holds. What is below an image is only read. */
  #contentOf(node: Node): Node[] {
    const { view } = this.#changer.state;
    const below = view.from(node).filter(({ role }) => SAME_DISK.includes(role));
    return [node, ...below.flatMap(({ to }) => this.#contentOf(to))];
  }

  async #gather(control: JobControl): Promise<string[]> {
    const { from, sources, operation } = this.#options;
    if (from === 'bitmap' || from === 'everything') return [];
    const warnings: string[] = [];
    for (const [i, { node }] of sources.entries()) {
      const root = this.#roots.get(this.#changer.state.node(node))!;
      const unknown = await this.#gathered!.ask(root, {
        mode: from === 'allocation' ? 'top' : 'full',
        signal: control.ending,
        mayAsk: () => control.next(),
        told: (bytes) => {
          this.#doneBytes = Math.max(this.#doneBytes, i * root.size + bytes);
        },
      });
      if (unknown.length > 0 && operation === 'difference') throw notKnown(node, unknown);
      warnings.push(...root.warnings, ...unknown);
    }
    return warnings;
  }

  #ending(): JobEnd {
    const made: Bitmap[] = [];
    return {
      roots: [],
      changes: { bitmaps: this.#joining(made) },
      done: async () => {},
      free: () => {
        for (const bits of made) bits.free();
      },
    };
  }

  /** Changes all targets, at one moment. @param made gets bits that are needed for it, to be freed behind it. */
  #joining(made: Bitmap[]): BitmapChange[] {
    let isComplete = false;
    const complete = () => {
      if (isComplete) return;
      isComplete = true;
      for (const use of this.#uses) use.release();
      this.#complete();
    };
    const nodes = new Set(this.#targets.map(({ node }) => node));
    return [...nodes].map((node) => {
      const own = this.#targets.filter((target) => target.node === node);
      const now = () => {
        complete();
        return own.flatMap((target) => this.#actionsFor(target, made));
      };
      // What they add is marked before anything is held up.
      const actions = own.map(
        ({ name }) => ({ type: 'merge', target: name, sources: [] }) as const,
      );
      return { node, actions, now };
    });
  }

  /** Adds what is only known at the end. */
  #complete(): void {
    const gathered = this.#gathered!;
    const { from, sources } = this.#options;
    if (from === 'everything') gathered.addAll();
    for (const { node: name, bitmap } of sources) {
      const node = this.#changer.state.node(name);
      if (bitmap !== undefined) gathered.add(node.log.bitmaps.look(bitmap));
      else
        for (const each of this.#contentOf(node)) {
          const watch = this.#watches.get(each)!;
          gathered.doubt(watch.look());
          gathered.doubt(watch.unrecorded);
        }
    }
  }

  #actionsFor({ node, name, isRecording }: Target, made: Bitmap[]): BitmapAction[] {
    const { found, rest } = this.#gathered!;
    const { operation } = this.#options;
    if (operation === 'union') return [{ type: 'merge', target: name, sources: [found] }];
    const since = isRecording ? [this.#watches.get(node)!.look()] : [];
    let stays = found;
    if (operation === 'difference') {
      stays = node.log.bitmaps.get(name).snapshot();
      made.push(stays);
      stays.intersect(rest);
    }
    return [
      { type: 'clear', name },
      { type: 'merge', target: name, sources: [stays, ...since] },
    ];
  }
}

const SAME_DISK: readonly string[] = ['disk', 'watched disk', 'filled disk'];

/** What counts too much would become clean. */
function notKnown(node: string, why: readonly string[]): LacunaError {
  const message = `what counts of node '${node}' is not known: ${why.join('; ')}; so a difference would make clean what it must not, and nothing was changed`;
  return new LacunaError('ERR_DEVICE_UNSUPPORTED', message);
}

function checkSize(node: Node, first: Node): void {
  if (node.size === first.size) return;
  const message = `bitmaps of node '${first.name}' are of ${first.size} bytes, and node '${node.name}' has ${node.size}: they must be the same size`;
  throw new LacunaError('ERR_BITMAP_MISMATCH', message);
}
