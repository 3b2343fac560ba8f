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

/** What a budget consists of; plain data. */
export interface BudgetPlan {
  readonly ownPages: number;
  readonly commonPages: number;
  readonly maxClients: number;
}

/** A number that all threads change together. */
export interface BudgetCounter {
  get(): number;
  /** Returns what it was before. */
  add(change: number): number;
}

export interface BudgetCounters {
  /** Pages of the common part that are held. */
  readonly pages: BudgetCounter;
  /** Clients that have a place. */
  readonly clients: BudgetCounter;
}

/**
 * @param maxMemory bytes; undefined for what fits the number of clients
 * @throws RangeError
 */
export function planBudget(maxMemory: number | undefined, maxClients: number): BudgetPlan {
  const least = Math.max(MiB, LEAST_BYTES_EACH * maxClients);
  const bytes = maxMemory ?? Math.max(DEFAULT_BYTES, DEFAULT_BYTES_EACH * maxClients);
  checkCount('maxMemory', bytes, least, Number.MAX_SAFE_INTEGER);
  const ownBytes = Math.min(MOST_OWN_BYTES, bytes / OWN_SHARE / maxClients);
  // A power of two, as buffers are.
  const ownPages = 2 ** Math.floor(Math.log2(ownBytes / PAGE_BYTES));
  const commonPages = Math.floor(bytes / PAGE_BYTES) - ownPages * maxClients;
  return { ownPages, commonPages: Math.min(commonPages, MOST_PAGES), maxClients };
}

/** The budget, as one of the threads that count has it. */
export class MemoryBudget {
  readonly #plan: BudgetPlan;
  readonly #counters: BudgetCounters;

  /** @param counters those that all threads share; default: there is one thread */
  constructor(
    plan: BudgetPlan,
    counters: BudgetCounters = { pages: new Counter(), clients: new Counter() },
  ) {
    this.#plan = plan;
    this.#counters = counters;
  }

  /** Clients that have a place. */
  get clients(): number {
    return this.#counters.clients.get();
  }

  /** Bytes that clients hold beyond what is their own. */
  get commonBytes(): number {
    return this.#counters.pages.get() * PAGE_BYTES;
  }

  /** A place for one more client; undefined where there is none. */
  open(): MemoryAccount | undefined {
    const { ownPages, commonPages, maxClients } = this.#plan;
    const { pages, clients } = this.#counters;
    if (!takeOf(clients, 1, maxClients)) return undefined;
    return new MemoryAccount(ownPages, {
      take: (count, held) =>
        held <= commonPages / clients.get() && takeOf(pages, count, commonPages),
      free: (count) => void pages.add(-count),
      close: () => void clients.add(-1),
    });
  }
}

/** Counts `count` more, where there are at most `most` then. */
function takeOf(counter: BudgetCounter, count: number, most: number): boolean {
  if (counter.add(count) + count <= most) return true;
  counter.add(-count);
  return false;
}

class Counter implements BudgetCounter {
  #value = 0;

  get(): number {
    return this.#value;
  }

  add(change: number): number {
    const before = this.#value;
    this.#value += change;
    return before;
  }
}

interface Common {
  /** @param held pages that the client would then have of the common part */
  take(pages: number, held: number): boolean;
  free(pages: number): void;
  close(): void;
}

/** What one client holds. */
export class MemoryAccount {
  /** Bytes that are always to be had while nothing is held; a power of two. */
  readonly ownBytes: number;
  readonly #ownPages: number;
  readonly #common: Common;
  #pages = 0;
  #closing = false;
  #closed = false;

  constructor(ownPages: number, common: Common) {
    this.ownBytes = ownPages * PAGE_BYTES;
    this.#ownPages = ownPages;
    this.#common = common;
  }

  /** Whether so many bytes more may be held; they are then, until {@link free}. */
  take(bytes: number): boolean {
    const pages = this.#pages + pagesOf(bytes);
    const before = this.#beyond(this.#pages);
    const after = this.#beyond(pages);
    if (after > before && !this.#common.take(after - before, after)) return false;
    this.#pages = pages;
    return true;
  }

  free(bytes: number): void {
    const before = this.#beyond(this.#pages);
    this.#pages -= pagesOf(bytes);
    const after = this.#beyond(this.#pages);
    if (before > after) this.#common.free(before - after);
    this.#checkClosed();
  }

  /** Frees the place, once nothing is held any more: a request may be carried out longer than its client stays. */
  close(): void {
    this.#closing = true;
    this.#checkClosed();
  }

  #checkClosed(): void {
    if (!this.#closing || this.#closed || this.#pages > 0) return;
    this.#closed = true;
    this.#common.close();
  }

  #beyond(pages: number): number {
    return Math.max(0, pages - this.#ownPages);
  }
}

function pagesOf(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES);
}
