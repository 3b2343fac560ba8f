import { Context, ExtentList, Status } from '../../../../extent/index.js';
import { RunKind } from '../../../../qcow2/index.js';
import type { BlockDevice } from '../../../contract/index.js';
import { FileHoles } from './file-holes.js';
import type { Image } from './image.js';
import type { RunDecoder } from './run-decoder.js';
import { RunWalk } from './run-walk.js';

/** What a qcow2 device answers. */
export const CONTEXTS: readonly string[] = [Context.allocation, Context.depth];

/** An answer ends after this many extents, or tables, so that others have their turn. */
const MOST_EXTENTS = 65_536;
const MOST_TABLES = 256;

/** How much of the backing file's status is asked for at once, where this image has but small gaps. */
const LOOKAHEAD = 512 * 1024 * 1024;

/** So many tables take as long to decode here as the kernel that does it faster takes to load. */
const WORTH_A_KERNEL = 256;

const NO_DATA = Status.hole | Status.zero;

/** Depth of what is allocated in the image itself. */
const HERE = 1;

/**
 * The status of an image through its chain. What a cluster is comes from the first image that has it; behind the end
 * of a backing file that is shorter, all is zero, and has the depth of that file, as QEMU counts.
 */
export class ChainStatus {
  readonly #image: Image;
  #backing?: BackingStatus;
  #holes?: Promise<FileHoles | undefined>;
  #tables = 0;
  #decoder?: Promise<RunDecoder | undefined>;
  /** Held by one walk at a time. */
  #decoding = false;

  constructor(image: Image, backing?: BlockDevice) {
    this.#image = image;
    this.#backing = backing === undefined ? undefined : new BackingStatus(backing);
  }

  /** One list for each context, of the range or of its beginning. */
  async extents(
    offset: number,
    length: number,
    contexts: readonly string[],
    signal?: AbortSignal,
  ): Promise<ExtentList[]> {
    const { changes } = this.#image;
    if (!changes) this.#holes ??= FileHoles.look(this.#image);
    const holes = changes ? undefined : await this.#holes;
    const lists: Lists = { allocation: new ExtentList(offset), depth: new ExtentList(offset) };
    const walk = new RunWalk(this.#image, offset, offset + length);
    if (this.#tables >= WORTH_A_KERNEL && !this.#decoding && !changes) {
      this.#decoding = true;
      // Where the arena is full it takes longer, and that is all.
      this.#decoder ??= this.#loadDecoder().catch(() => undefined);
      walk.decoder = await this.#decoder;
      try {
        await this.#visit(walk, lists, { holes, signal });
      } finally {
        this.#decoding = false;
      }
    } else await this.#visit(walk, lists, { holes, signal });
    this.#tables += walk.tables;
    return contexts.map((context) => (context === Context.depth ? lists.depth : lists.allocation));
  }

  /** The device below shows something else. */
  changedBelow(): void {
    this.#backing?.forget();
  }

  /** Nothing is below any more. */
  endBacking(): void {
    this.#backing = undefined;
  }

  async close(): Promise<void> {
    (await this.#decoder)?.free();
  }

  async #loadDecoder(): Promise<RunDecoder | undefined> {
    const { RunDecoder } = await import('./run-decoder.js');
    return RunDecoder.for(this.#image.rules);
  }

  async #visit(
    walk: RunWalk,
    lists: Lists,
    { holes, signal }: { holes: FileHoles | undefined; signal: AbortSignal | undefined },
  ): Promise<void> {
    for (;;) {
      const more = walk.next();
      if (!(more instanceof Promise ? await more : more)) return;
      if (walk.kind !== RunKind.unallocated) pushOwn(lists, walk, holes);
      else if (this.#backing !== undefined) await this.#backing.pushTo(lists, walk, signal);
      else push(lists, walk.length, NO_DATA, 0);
      if (lists.allocation.count >= MOST_EXTENTS || walk.tables >= MOST_TABLES) return;
    }
  }
}

interface Lists {
  readonly allocation: ExtentList;
  readonly depth: ExtentList;
}

function push({ allocation, depth }: Lists, length: number, status: number, level: number): void {
  allocation.push(length, status);
  depth.push(length, level);
}

function pushOwn(lists: Lists, run: RunWalk, holes: FileHoles | undefined): void {
  if (run.kind === RunKind.data && holes !== undefined) {
    holes.pushTo(lists.allocation, run.host, run.length);
    lists.depth.push(run.length, HERE);
    return;
  }
  // A cluster of zeroes takes no room here, or does not need what it takes: to QEMU it is a hole, allocated all the same.
  push(lists, run.length, run.kind === RunKind.zero ? NO_DATA : Status.data, HERE);
}

/** What a backing file says of a range. */
interface Answer {
  readonly start: number;
  readonly end: number;
  readonly lists: readonly ExtentList[];
}

/** What a backing file says, asked for in large pieces and kept for the next gap. */
class BackingStatus {
  readonly #device: BlockDevice;
  /** The last one; several walks may ask at the same time, so each goes on with its own. */
  #last?: Answer;

  constructor(device: BlockDevice) {
    this.#device = device;
  }

  forget(): void {
    this.#last = undefined;
  }

  get #contexts(): readonly string[] {
    const { contexts } = this.#device.capabilities;
    return CONTEXTS.filter(
      (context) => context === Context.allocation || contexts.includes(context),
    );
  }

  /** Adds the status of a run that the image does not have. */
  async pushTo(lists: Lists, run: RunWalk, signal?: AbortSignal): Promise<void> {
    const end = run.offset + run.length;
    const stop = Math.min(end, this.#device.size);
    for (let at = run.offset; at < stop; ) {
      const last = this.#last;
      const isThere = last !== undefined && last.start <= at && at < last.end;
      const answer = isThere ? last : await this.#ask(at, stop, signal);
      const to = Math.min(stop, answer.end);
      const [allocation, depth] = answer.lists;
      pushPart(lists.allocation, allocation, at, to);
      if (depth === undefined) lists.depth.push(to - at, HERE + 1);
      else pushPart(lists.depth, depth, at, to, deeper);
      at = to;
      if (lists.allocation.count >= MOST_EXTENTS) return;
    }
    push(lists, end - Math.max(stop, run.offset), NO_DATA, HERE + 1);
  }

  async #ask(offset: number, end: number, signal?: AbortSignal): Promise<Answer> {
    const stop = Math.min(this.#device.size, Math.max(end, offset + LOOKAHEAD));
    const options = { contexts: this.#contexts, signal };
    const lists = await this.#device.someExtents(offset, stop - offset, options);
    const answer = { start: offset, end: Math.min(...lists.map((list) => list.end)), lists };
    this.#last = answer;
    return answer;
  }
}

function deeper(depth: number): number {
  return depth === 0 ? 0 : depth + 1;
}

/** Adds a part of a list to another one. */
function pushPart(
  target: ExtentList,
  list: ExtentList,
  from: number,
  to: number,
  change: (flags: number) => number = same,
): void {
  for (let i = list.indexOf(from), at = from; at < to; i++) {
    const end = Math.min(to, list.endAt(i));
    target.push(end - at, change(list.flagsAt(i)));
    at = end;
  }
}

function same(flags: number): number {
  return flags;
}
