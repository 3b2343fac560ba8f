/**
 * The memory that all clients of a server may hold together, in whatever threads they are served, and the places that
 * they take.
 *
 *     |-- own --|-- own --| ... one for each client that there may be |------ common ------|
 *
 * Each client has a part of its own that nobody else can take, so that it never waits for another client: what does
 * not fit is moved in pieces of that size. What it holds beyond comes from the common part, of which it may have as
 * much as is its share among the clients that there are now.
 */
import { checkCount } from './limits.js';

const KiB = 1024;
const MiB = 1024 * KiB;

/** Memory is counted in pages, so that 32 bits suffice. */
const PAGE_BYTES = 4 * KiB;
const MOST_PAGES = 2 ** 30;

const DEFAULT_BYTES = 256 * MiB;
const DEFAULT_BYTES_EACH = 256 * KiB;
const LEAST_BYTES_EACH = 64 * KiB;
/** The parts that are clients' own are at most a fourth of all. */
const OWN_SHARE = 4;
const MOST_OWN_BYTES = MiB;

/** What threads need to count together; plain data that shares its memory. */
export interface BudgetPlan {
  readonly cells: Int32Array;
  readonly ownPages: number;
  readonly commonPages: number;
  readonly maxClients: number;
}

/** Cells: those of all threads together, and behind them those of each thread. */
const PAGES = 0;
const CLIENTS = 1;
const CELLS_EACH = 2;

/**
 * @param maxMemory bytes; undefined for what fits the number of clients
 * @param threads threads that will count beside the calling one
 * @throws RangeError
 */
export function planBudget(
  maxMemory: number | undefined,
  maxClients: number,
  threads: number,
): BudgetPlan {
  const least = Math.max(MiB, LEAST_BYTES_EACH * maxClients);
  const bytes = maxMemory ?? Math.max(DEFAULT_BYTES, DEFAULT_BYTES_EACH * maxClients);
  checkCount('maxMemory', bytes, least, Number.MAX_SAFE_INTEGER);
  const ownBytes = Math.min(MOST_OWN_BYTES, bytes / OWN_SHARE / maxClients);
  // A power of two, as buffers are.
  const ownPages = 2 ** Math.floor(Math.log2(ownBytes / PAGE_BYTES));
  const commonPages = Math.floor(bytes / PAGE_BYTES) - ownPages * maxClients;
  return {
    cells: new Int32Array(new SharedArrayBuffer(4 * CELLS_EACH * (2 + threads))),
    ownPages,
    commonPages: Math.min(commonPages, MOST_PAGES),
    maxClients,
  };
}

/** The budget, as one of the threads that count has it. */
export class MemoryBudget {
  readonly #plan: BudgetPlan;
  readonly #thread: number;

  /** @param thread which of the planned ones, from 0 */
  constructor(plan: BudgetPlan, thread: number) {
    this.#plan = plan;
    this.#thread = thread;
  }

  /** Clients that have a place. */
  get clients(): number {
    return Atomics.load(this.#plan.cells, CLIENTS);
  }

  /** Bytes that clients hold beyond what is their own. */
  get commonBytes(): number {
    return Atomics.load(this.#plan.cells, PAGES) * PAGE_BYTES;
  }

  /** A place for one more client; undefined where there is none. */
  open(): MemoryAccount | undefined {
    const { cells, ownPages, commonPages, maxClients } = this.#plan;
    if (Atomics.add(cells, CLIENTS, 1) >= maxClients) {
      Atomics.sub(cells, CLIENTS, 1);
      return undefined;
    }
    this.#note(CLIENTS, 1);
    return new MemoryAccount(ownPages, {
      take: (pages, held) => {
        if (held > commonPages / Math.max(this.clients, 1)) return false;
        if (Atomics.add(cells, PAGES, pages) + pages > commonPages) {
          Atomics.sub(cells, PAGES, pages);
          return false;
        }
        this.#note(PAGES, pages);
        return true;
      },
      giveBack: (pages) => this.#count(PAGES, -pages),
      leave: () => this.#count(CLIENTS, -1),
    });
  }

  #count(cell: number, change: number): void {
    Atomics.add(this.#plan.cells, cell, change);
    this.#note(cell, change);
  }

  #note(cell: number, change: number): void {
    Atomics.add(this.#plan.cells, CELLS_EACH * (1 + this.#thread) + cell, change);
  }
}

/** Takes back what a thread that is no more has left. */
export function forgetThread({ cells }: BudgetPlan, thread: number): void {
  for (const cell of [PAGES, CLIENTS]) {
    Atomics.sub(cells, cell, Atomics.exchange(cells, CELLS_EACH * (1 + thread) + cell, 0));
  }
}

interface Common {
  /** @param held pages that the client would then have of the common part */
  take(pages: number, held: number): boolean;
  giveBack(pages: number): void;
  leave(): void;
}

/** What one client holds. */
export class MemoryAccount {
  /** Bytes that are always to be had while nothing is held; a power of two. */
  readonly ownBytes: number;
  readonly #ownPages: number;
  readonly #common: Common;
  #pages = 0;
  #leaving = false;
  #left = false;

  constructor(ownPages: number, common: Common) {
    this.ownBytes = ownPages * PAGE_BYTES;
    this.#ownPages = ownPages;
    this.#common = common;
  }

  /** Whether so many bytes more may be held; they are then, until {@link giveBack}. */
  take(bytes: number): boolean {
    const pages = this.#pages + pagesOf(bytes);
    const before = this.#beyond(this.#pages);
    const after = this.#beyond(pages);
    if (after > before && !this.#common.take(after - before, after)) return false;
    this.#pages = pages;
    return true;
  }

  giveBack(bytes: number): void {
    const before = this.#beyond(this.#pages);
    this.#pages -= pagesOf(bytes);
    const after = this.#beyond(this.#pages);
    if (before > after) this.#common.giveBack(before - after);
    this.#checkLeft();
  }

  /** Gives back the place, once nothing is held any more: a request may be carried out longer than its client stays. */
  leave(): void {
    this.#leaving = true;
    this.#checkLeft();
  }

  #checkLeft(): void {
    if (!this.#leaving || this.#left || this.#pages > 0) return;
    this.#left = true;
    this.#common.leave();
  }

  #beyond(pages: number): number {
    return Math.max(0, pages - this.#ownPages);
  }
}

function pagesOf(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES);
}
