import { Bitmap, type BitmapAction } from '../../../bitmap/index.js';
import { plan } from '../../../copy/index.js';
import type { JobControl, JobCounts } from '../../../job/index.js';
import type {
  BitmapChange,
  Changer,
  Changes,
  Node,
  NodeDescription,
  Root,
} from '../../core/index.js';
import { SideError } from '../../filters/index.js';
import { endAlone, endAtLast, endInGroup, type GroupMember, type JobEnd } from '../group/index.js';
import { inLanes, type Piece, piecesOf, policyFor } from '../rounds/index.js';
import type { BackupJobReport, BackupPair, CheckedOptions } from './options.js';

/** A disk while it is backed up. */
interface Disk {
  readonly node: Node;
  readonly target: Node;
  readonly filter: Node;
  /** Where the job reads the node's status, and passes for each piece. */
  readonly root: Root;
  /** The target was opened for the job. */
  readonly isOwn: boolean;
}

/** A piece of one of the disks. */
interface DiskPiece extends Piece {
  readonly disk: Disk;
}

/** One run of a backup job. */
export class BackupRun {
  readonly #changer: Changer;
  readonly #options: CheckedOptions;
  readonly #disks: Disk[] = [];
  readonly #opened: Node[] = [];
  #hasLeft = false;
  #totalBytes = 0;
  #doneBytes = 0;
  #movedBytes = 0;
  #zeroedBytes = 0;

  constructor(changer: Changer, options: CheckedOptions) {
    this.#changer = changer;
    this.#options = options;
  }

  counted(): JobCounts {
    return { totalBytes: this.#totalBytes, doneBytes: this.#doneBytes };
  }

  /** @param member with whom it ends. */
  async work(control: JobControl, member: GroupMember): Promise<BackupJobReport> {
    try {
      await this.#copy(control);
      for (const { target } of this.#disks) await target.device.flush();
      if (this.#options.sync === 'none') await this.#endAtLast(true, control);
      else await member.end(async () => this.#ending(true), control);
    } catch (error) {
      const leave = async () => {
        if (!this.#hasLeft) await this.#endAtLast(false, control);
      };
      await endInGroup(() => leave().catch(() => {}), { error, member, control });
    }
    return { movedBytes: this.#movedBytes, zeroedBytes: this.#zeroedBytes };
  }

  async #copy(control: JobControl): Promise<void> {
    if (this.#options.sync === 'none') await untilStopped(control);
    else await this.#move(await this.#plan(control), control);
    this.#checkSound();
  }

  #endAtLast(isGood: boolean, control: JobControl): Promise<void> {
    const end = () => endAlone(this.#changer, async () => this.#ending(isGood));
    return endAtLast(() => this.#changer.run(end), control);
  }

  /** Opens what it needs, and tells what happens at its point in time. */
  async prepare(): Promise<Partial<Changes>> {
    for (const pair of this.#options.disks) await this.#open(pair);
    const bitmaps = this.#bitmapChanges(() => [{ type: 'freeze', name: this.#options.bitmap! }]);
    return { ...this.#changer.upwards(this.#disks.map(({ filter }) => filter)), bitmaps };
  }

  /** Takes back {@link prepare}, also where that has failed after some of it was done. */
  async takeBack(): Promise<void> {
    const roots = this.#disks.map(({ root }) => root);
    await this.#changer.takeBack(roots, [...this.#opened].reverse());
  }

  async #open({ node: name, target: wanted, filter: filterName }: BackupPair): Promise<void> {
    const changer = this.#changer;
    const { state } = changer;
    const { sync, bitmap, onCopyError, copyTimeout, detectZeroes, targetIsZero } = this.#options;
    const node = state.node(name);
    const isOwn = typeof wanted !== 'string';
    const nameFor = (what: string) => state.freeName(`${name}.${what}`);
    const add = async (description: NodeDescription): Promise<Node> => {
      const added = await changer.add(description, { writable: true });
      this.#opened.push(added);
      return added;
    };
    const target = isOwn
      ? await add({ 'node-name': nameFor('target'), ...wanted } as NodeDescription)
      : state.node(wanted);
    const isDirtyOnly = sync === 'bitmap' || sync === 'incremental';
    const filter = await add({
      driver: 'copy-before-write',
      'node-name': filterName ?? nameFor('kept'),
      file: name,
      target: target.name,
      'on-cbw-error': onCopyError,
      'cbw-timeout': copyTimeout,
      'detect-zeroes': detectZeroes,
      'target-is-zero': targetIsZero,
      ...(isDirtyOnly && { bitmap: { node: name, name: bitmap! } }),
    });
    const entering = { name: nameFor('backup'), what: 'job', node, writable: false };
    const root = await changer.enter(entering);
    this.#disks.push({ node, target, filter, root, isOwn });
  }

  /** What must be copied; what need not be is given up. */
  async #plan(control: JobControl): Promise<DiskPiece[]> {
    const { sync, bitmap } = this.#options;
    const pieces: DiskPiece[] = [];
    const add = (disk: Disk, some: Iterable<Piece>) => {
      for (const piece of some) pieces.push({ ...piece, disk });
    };
    for (const disk of this.#disks) {
      const isDirtyOnly = sync === 'bitmap' || sync === 'incremental';
      const dirty = isDirtyOnly ? disk.node.log.bitmaps.get(bitmap!).snapshot() : undefined;
      const mode = sync === 'top' ? 'top' : isDirtyOnly ? 'incremental' : 'full';
      // The status is that of now, and not of the point in time: each piece is looked at again when it is taken.
      const source = disk.root;
      try {
        const scope = { mode, ...(dirty && { bitmap: dirty }) } as const;
        const { data, zero } = await plan({ source, ...scope, signal: control.ending });
        try {
          add(disk, piecesOf(data.ranges(), 'data'));
          // Where the target is zero nothing of them is written, but a view of the filter shows them.
          add(disk, piecesOf(zero.ranges(), 'zero'));
          if (sync === 'top') await giveUpRest(disk, data, zero);
        } finally {
          data.free();
          zero.free();
        }
      } finally {
        dirty?.free();
      }
    }
    this.#totalBytes = pieces.reduce((sum, { length }) => sum + length, 0);
    return pieces;
  }

  async #move(pieces: readonly DiskPiece[], control: JobControl): Promise<void> {
    await inLanes(pieces, async (piece) => {
      await this.#take(piece, control);
      this.#doneBytes += piece.length;
    });
  }

  /** A piece, again and again where its policy says so. Between the attempts nothing is held. */
  async #take(piece: DiskPiece, control: JobControl): Promise<void> {
    const { disk, offset, length, kind } = piece;
    for (;;) {
      await control.next(kind === 'data' ? length : 0);
      this.#checkSound();
      try {
        const taken = await disk.root.pass(() =>
          disk.filter.driver.snapshot!.take(offset, length, kind === 'zero'),
        );
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

  #checkSound(): void {
    for (const { filter } of this.#disks) {
      const broken = filter.driver.snapshot?.broken;
      if (broken !== undefined) throw broken;
    }
  }

  #ending(isGood: boolean): JobEnd {
    if (isGood) this.#checkSound();
    const remains: Bitmap[] = [];
    const filters = this.#disks.map(({ filter }) => filter);
    const unused = this.#disks.flatMap(({ target, isOwn }) => (isOwn ? target : []));
    return {
      roots: this.#disks.map(({ root }) => root),
      changes: {
        ...this.#changer.downwards(filters),
        bitmaps: this.#bitmapChanges((disk) => this.#lastActions(disk, isGood, remains)),
      },
      done: async () => {
        this.#hasLeft = true;
        await this.#changer.state.removeAll([...filters, ...unused]);
      },
      free: () => {
        for (const bits of remains) bits.free();
      },
    };
  }

  #lastActions(disk: Disk, isGood: boolean, remains: Bitmap[]): BitmapAction[] {
    const { bitmap: name = '', bitmapMode } = this.#options;
    if (bitmapMode === 'never') return [{ type: 'reclaim', name }];
    if (isGood) return [{ type: 'abdicate', name }];
    if (bitmapMode === 'on-success') return [{ type: 'reclaim', name }];
    const rest = disk.filter.driver.snapshot!.remaining();
    remains.push(rest);
    return [
      { type: 'abdicate', name },
      { type: 'merge', target: name, sources: [rest] },
    ];
  }

  #bitmapChanges(actions: (disk: Disk) => BitmapAction[]): BitmapChange[] {
    if (this.#options.bitmap === undefined) return [];
    return this.#disks.map((disk) => ({ node: disk.node, actions: actions(disk) }));
  }
}

/** Nobody waits for what is not going to be copied. */
async function giveUpRest(disk: Disk, data: Bitmap, zero: Bitmap): Promise<void> {
  const source = disk.filter.driver.snapshot!;
  const rest = new Bitmap({ size: data.size, granularity: data.granularity, arena: data.arena });
  try {
    rest.setAll();
    rest.subtract(data);
    rest.subtract(zero);
    for (const { offset, length } of rest.ranges()) {
      await disk.root.pass(() => source.giveUp(offset, length));
    }
  } finally {
    rest.free();
  }
}

/** @throws LacunaError ERR_ABORTED where the signal has fired. */
async function untilStopped(control: JobControl): Promise<void> {
  if (!control.ending.aborted) {
    await new Promise<void>((resolve) => {
      control.ending.addEventListener('abort', () => resolve(), { once: true });
    });
  }
  if (control.signal.aborted) control.throwIfEnding();
}
