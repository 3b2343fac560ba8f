/** Makes requests again that failed, in smaller pieces, and leaves out what fails at last, as the policies say. */
import type { BlockDevice } from '../../block/index.js';
import type { LacunaError } from '../../errors/index.js';
import { alignUp } from '../../util/index.js';
import {
  backoffOf,
  isRefusal,
  mayRepeat,
  maySplit,
  onSide,
  type Side,
  SideError,
} from '../options/index.js';
import type { FailurePolicy, Losses, Shared } from './parts.js';

/** Nothing smaller is left out: what memory and most disks read and write at once. */
const SMALLEST = 4096;

/** How far a range has come, from its beginning: less than all of it after a failure, or when the copy was stopped. */
export interface Settled {
  bytes: number;
  error?: unknown;
}

type Request = (offset: number, length: number) => Promise<void>;

export class Repeater {
  readonly #target: BlockDevice;
  readonly #losses: Losses;
  readonly #policy: FailurePolicy;
  readonly #shared: Omit<Shared, 'arena'>;
  readonly #smallest: number;

  constructor(
    target: BlockDevice,
    losses: Losses,
    policy: FailurePolicy,
    shared: Omit<Shared, 'arena'>,
  ) {
    this.#target = target;
    this.#losses = losses;
    this.#policy = policy;
    this.#shared = shared;
    this.#smallest = Math.max(SMALLEST, losses.leftOutMap.granularity);
  }

  /** Makes a request, and what is needed after it should it fail. Never throws. */
  run(offset: number, length: number, request: Request): Promise<Settled> {
    return this.#try(offset, length, request, 0);
  }

  /** Deals with a request that has failed with `error`. Never throws. */
  async settle(
    error: unknown,
    offset: number,
    length: number,
    request: Request,
    tried = 0,
  ): Promise<Settled> {
    if (!(error instanceof SideError)) return { bytes: 0, error };
    const { control, counters } = this.#shared;
    const rule = this.#policy.rules[error.side];
    const again = tried < rule.attempts && mayRepeat(error.cause);
    if (!again && !(rule.policy === 'ignore' && isRefusal(error.cause))) return { bytes: 0, error };
    const goesOn = await (again ? control.delay(backoffOf(rule, tried)) : control.mayGo());
    if (!goesOn) return { bytes: 0 };
    const step = maySplit(error.cause) ? this.#half(offset, length) : length;
    if (step === length && !again) return this.#leaveOut(error, offset, length);
    for (let at = 0; at < length; at += step) {
      const size = Math.min(step, length - at);
      counters.retries += 1;
      const part = await this.#try(offset + at, size, request, again ? tried + 1 : tried);
      if (part.bytes < size) return { ...part, bytes: at + part.bytes };
    }
    return { bytes: length };
  }

  async #try(offset: number, length: number, request: Request, tried: number): Promise<Settled> {
    try {
      await request(offset, length);
      return { bytes: length };
    } catch (error) {
      return this.settle(error, offset, length, request, tried);
    }
  }

  /** The first half of a range, ending at a multiple of the smallest piece; all of it where there is none. */
  #half(offset: number, length: number): number {
    const middle = alignUp(offset + Math.floor(length / 2), this.#smallest);
    return middle > offset && middle < offset + length ? middle - offset : length;
  }

  async #leaveOut({ side, cause }: SideError, offset: number, length: number): Promise<Settled> {
    if (side === 'source') {
      const zeroed = await this.run(offset, length, this.#zero);
      if (zeroed.bytes < length) return zeroed;
    }
    try {
      this.#note(side, offset, length, cause);
      return { bytes: length };
    } catch (error) {
      // There may be no memory for the map: what is not noted is not left out.
      return { bytes: 0, error };
    }
  }

  /** Whatever the target held where the source cannot be read must not look like the source's. */
  readonly #zero: Request = (offset, length) => {
    const how = { unmap: this.#policy.unmap, signal: this.#shared.signal };
    return onSide('target', this.#target.zero(offset, length, how));
  };

  #note(side: Side, offset: number, length: number, error: LacunaError): void {
    const { leftOut, leftOutMap } = this.#losses;
    leftOutMap.set(offset, length);
    leftOut.add(side, offset, length, error);
    this.#shared.counters.leftOutBytes += length;
  }
}
