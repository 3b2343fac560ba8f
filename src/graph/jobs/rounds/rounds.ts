import { Bitmap } from '../../../bitmap/index.js';
import type { DiskCopy } from '../../../block/index.js';
import type { Plan } from '../../../copy/index.js';
import type { Range } from '../../../extent/index.js';
import type { JobControl } from '../../../job/index.js';
import { onSide, SideError } from '../../filters/index.js';
import { inLanes } from './lanes.js';
import { type Piece, piecesOf } from './pieces.js';
import { type ErrorPolicies, policyFor } from './policies.js';

/** What is to be done about some ranges. Its receiver frees it. */
export type RoundPlan = Pick<Plan, 'data' | 'zero'>;

/** What cannot be read is told in units of this. */
const READ_UNIT = 4096;

/** How rounds are made. */
export interface RoundsOptions {
  readonly copy: DiskCopy;
  readonly size: number;
  readonly control: JobControl;
  readonly policies: ErrorPolicies;
  /** Waits at the gate of the job, and counts work as one of its requests. */
  readonly pass: <T>(work: () => Promise<T>) => Promise<T>;
  /** What of these ranges is data now. With `isDrained` it does not wait for a gate. */
  readonly plan: (dirty: Bitmap, isDrained: boolean) => Promise<RoundPlan>;
}

/** How a piece is carried out. */
type Taking = (piece: Piece) => Promise<readonly Range[]>;

/**
 * Brings the copy of a disk closer to the disk, which is written meanwhile: a round takes what is dirty, looks which of it reads as zero,
 * zeroes that and copies the rest. What it could not do is dirty again when it ends. One round is made at a time.
 */
export class Rounds {
  totalBytes = 0;
  doneBytes = 0;
  movedBytes = 0;
  zeroedBytes = 0;
  /** What could not be read, and was zeroed in the target; it is dirty too. */
  readonly unread: Bitmap;
  readonly #options: RoundsOptions;
  #hasLeftOut = false;

  constructor(options: RoundsOptions) {
    this.#options = options;
    this.unread = new Bitmap({ size: options.size, granularity: READ_UNIT });
  }

  /** Whether the target has failed pieces of the last round that the policy says to ignore. */
  get hasLeftOut(): boolean {
    return this.#hasLeftOut;
  }

  /** Bytes that the next round would copy, without what could not be read. */
  get remainingBytes(): number {
    const { copy } = this.#options;
    if (this.unread.count === 0) return copy.dirtyBytes;
    const { size } = this.#options;
    const dirty = copy.copyDirty();
    let unread: Bitmap | undefined;
    try {
      // All of a granule is dirty where a part of it could not be read.
      unread = new Bitmap({ size, granularity: copy.granularity });
      unread.merge(this.unread);
      dirty.subtract(unread);
      return dirty.dirtyBytes;
    } finally {
      unread?.free();
      dirty.free();
    }
  }

  /** The first round. @param plan what it has to do; nothing has been dirty before. */
  async first(plan: () => Promise<RoundPlan>): Promise<void> {
    const made = await this.#insist(() => onSide('source', plan()));
    await this.#carryOut(made, (piece) => this.#patiently(piece));
  }

  /** A round while the disk is written. */
  async next(): Promise<void> {
    const { copy, plan } = this.#options;
    const dirty = this.#begin();
    const made = await this.#orBack(dirty, () =>
      this.#insist(() => onSide('source', plan(dirty, false))),
    );
    await this.#carryOut(made, (piece) => this.#patiently(piece));
    if (!this.#hasLeftOut) copy.recover();
  }

  /**
   * The last round, while nobody writes the disk: it waits for nobody, and fails where the target does.
   *
   * @param isOver says that nobody waits for it any more
   */
  async last(isOver: () => boolean): Promise<void> {
    try {
      await this.#last(isOver);
    } catch (error) {
      throw error instanceof SideError ? error.cause : error;
    }
  }

  free(): void {
    this.unread.free();
  }

  async #last(isOver: () => boolean): Promise<void> {
    const { copy, plan, control } = this.#options;
    if (copy.dirtyBytes > 0) {
      const dirty = this.#begin();
      const made = await this.#orBack(dirty, () => onSide('source', plan(dirty, true)));
      await this.#carryOut(made, (piece) => {
        control.throwIfEnding();
        if (isOver()) throw new Error('the last round took too long');
        return this.#once(piece);
      });
    }
    await copy.flush();
  }

  #begin(): Bitmap {
    const dirty = this.#options.copy.takeDirty();
    // It was dirty too, and is tried again.
    this.unread.resetAll();
    return dirty;
  }

  /** What was taken becomes dirty again where it cannot be planned. */
  async #orBack(dirty: Bitmap, plan: () => Promise<RoundPlan>): Promise<RoundPlan> {
    try {
      return await plan();
    } catch (error) {
      this.#options.copy.addDirty(dirty);
      throw error;
    } finally {
      dirty.free();
    }
  }

  async #carryOut({ data, zero }: RoundPlan, take: Taking): Promise<void> {
    const { copy } = this.#options;
    this.#hasLeftOut = false;
    this.totalBytes += data.dirtyBytes + zero.dirtyBytes;
    const taken = async (piece: Piece): Promise<readonly Range[]> => {
      const left = await take(piece);
      const bits = piece.kind === 'data' ? data : zero;
      bits.reset(piece.offset, piece.length);
      this.doneBytes += piece.length;
      return left;
    };
    try {
      // What was written since it was found to read as zero is data.
      const written: Range[] = [];
      await inLanes([...piecesOf(zero.ranges(), 'zero')], async (piece) => {
        written.push(...(await taken(piece)));
      });
      for (const { offset, length } of written) {
        data.set(offset, length);
        this.totalBytes += length;
      }
      await inLanes(
        [...piecesOf(data.ranges(), 'data')],
        async (piece) => void (await taken(piece)),
      );
    } catch (error) {
      for (const rest of [data, zero]) copy.addDirty(rest);
      throw error;
    } finally {
      data.free();
      zero.free();
    }
  }

  /** Again and again where the policy says so. Between the attempts nothing is held. */
  async #patiently(piece: Piece): Promise<readonly Range[]> {
    const { control, pass, copy } = this.#options;
    const { offset, length, kind } = piece;
    const leaveOut = async () => {
      this.#hasLeftOut = true;
      copy.setDirty(offset, length);
      return [];
    };
    return this.#insist(
      async () => {
        await control.next(kind === 'data' ? length : 0);
        return pass(() => this.#take(piece));
      },
      async ({ side }) => {
        if (side === 'target') return leaveOut();
        return this.#insist(() => pass(() => this.#takeReadable(piece)), leaveOut);
      },
    );
  }

  async #once(piece: Piece): Promise<readonly Range[]> {
    try {
      return await this.#take(piece);
    } catch (error) {
      const isUnread = error instanceof SideError && error.side === 'source';
      if (!isUnread || this.#options.policies.onSourceError !== 'ignore') throw error;
      return this.#takeReadable(piece);
    }
  }

  async #insist<T>(
    attempt: () => Promise<T>,
    instead?: (error: SideError) => Promise<T>,
  ): Promise<T> {
    const { control, policies } = this.#options;
    for (;;) {
      try {
        return await attempt();
      } catch (error) {
        if (!(error instanceof SideError)) throw error;
        const policy = policyFor(policies, error);
        if (policy === 'ignore' && instead !== undefined) return instead(error);
        if (policy !== 'stop') throw error.cause;
        await control.waitAbout(error.cause);
      }
    }
  }

  async #take({ offset, length, kind }: Piece): Promise<readonly Range[]> {
    const { copy } = this.#options;
    if (kind === 'zero') {
      const { zeroedBytes, left } = await copy.zero(offset, length);
      this.zeroedBytes += zeroedBytes;
      return left;
    }
    this.#count(await copy.copy(offset, length));
    return [];
  }

  /** Reads it again, as a write may have made it readable meanwhile. */
  async #takeReadable({ offset, length }: Piece): Promise<readonly Range[]> {
    const taken = await this.#options.copy.copyReadable(offset, length);
    this.#count(taken);
    for (const range of taken.unread) this.unread.set(range.offset, range.length);
    return [];
  }

  #count({ movedBytes, zeroedBytes }: { movedBytes: number; zeroedBytes: number }): void {
    this.movedBytes += movedBytes;
    this.zeroedBytes += zeroedBytes;
  }
}
