import { Turns } from './turns.js';

/** Work of one kind that several lanes do side by side, each one step after another. */
export interface LaneWork<Lane> {
  /** How many lanes there are. A function is asked before every step, for it may change its mind. */
  count: number | (() => number);
  /** What a lane has to itself, such as memory. Where it throws for the first lanes, no step is made. */
  open?(): Lane;
  /** Called once for what each lane had, as it has become. */
  close?(lane: Lane): void;
  /** One step; false where nothing is left for this lane, which then ends. */
  step(lane: Lane): Promise<boolean>;
  /** There is no room for more than these lanes: `open` threw while they ran. Without it, that fails the work. */
  crowded?(running: number): void;
}

/** What failed first. */
interface Failure {
  readonly error: unknown;
}

/**
 * Counts what runs side by side. The first failure is kept, and told when the rest has ended, so that nothing runs on
 * behind anybody's back.
 */
export class Lanes {
  #running = 0;
  #failure: Failure | undefined;
  #changed: Promise<void> | undefined;
  #change: (() => void) | undefined;

  /** How many run. */
  get running(): number {
    return this.#running;
  }

  /** What failed first, if anything did. */
  get failure(): Failure | undefined {
    return this.#failure;
  }

  /** Begins some work, beside what runs already. */
  start(work: () => Promise<void>): void {
    this.#running++;
    void this.#carryOut(work);
  }

  /** Waits until less than `most` runs. @throws what failed first, as soon as it did */
  async room(most: number): Promise<void> {
    for (;;) {
      if (this.#failure) throw this.#failure.error;
      if (this.#running < most) return;
      await this.#nextChange();
    }
  }

  /** Waits until nothing runs. @throws what failed first */
  async idle(): Promise<void> {
    while (this.#running > 0) await this.#nextChange();
    if (this.#failure) throw this.#failure.error;
  }

  /** Does work in as many lanes as it says, until none has anything left. @throws what failed first */
  async run<Lane>(work: LaneWork<Lane>): Promise<void> {
    const turns = new Turns();
    this.#open(work, turns, countOf(work));
    await this.idle();
  }

  /** Opens lanes before it starts any of them: all or none. */
  #open<Lane>(work: LaneWork<Lane>, turns: Turns, count: number): void {
    const lanes: Lane[] = [];
    try {
      while (lanes.length < count) lanes.push(work.open?.() as Lane);
    } catch (error) {
      // Why they cannot be opened says more than why one of them cannot be closed.
      for (const lane of lanes) failureOf(() => work.close?.(lane));
      throw error;
    }
    for (const lane of lanes) {
      this.#running++;
      void this.#lane(work, turns, lane);
    }
  }

  /**
   * Never throws. A lane counts until the moment when it decides to end, or all of them might find that they are too
   * many.
   */
  async #lane<Lane>(work: LaneWork<Lane>, turns: Turns, lane: Lane): Promise<void> {
    try {
      while (this.#running <= countOf(work)) {
        await turns.next();
        if (this.#failure || !(await work.step(lane))) return;
        if (this.#running < countOf(work)) this.#openMore(work, turns);
      }
    } catch (error) {
      this.#failure ??= { error };
    } finally {
      const failure = failureOf(() => work.close?.(lane));
      this.#failure ??= failure;
      this.#ended();
    }
  }

  #openMore<Lane>(work: LaneWork<Lane>, turns: Turns): void {
    if (this.#failure) return;
    try {
      this.#open(work, turns, countOf(work) - this.#running);
    } catch (error) {
      if (work.crowded === undefined) throw error;
      work.crowded(this.#running);
    }
  }

  async #carryOut(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#failure ??= { error };
    } finally {
      this.#ended();
    }
  }

  #ended(): void {
    this.#running--;
    this.#change?.();
    this.#change = undefined;
    this.#changed = undefined;
  }

  #nextChange(): Promise<void> {
    this.#changed ??= new Promise((resolve) => {
      this.#change = resolve;
    });
    return this.#changed;
  }
}

function failureOf(work: () => void): Failure | undefined {
  try {
    work();
    return undefined;
  } catch (error) {
    return { error };
  }
}

function countOf({ count }: { count: number | (() => number) }): number {
  return typeof count === 'number' ? count : count();
}
