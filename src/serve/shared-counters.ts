/** Numbers that the threads of a server change together, and each thread's part of them. */
import type { BudgetCounter, BudgetCounters } from '../nbd/server/index.js';

/** What a thread needs to count with the others; it is shared, not copied, on its way to a thread. */
export type CounterCells = Int32Array;

const PAGES = 0;
const CLIENTS = 1;
const CELLS_EACH = 2;

/** Cells for the sums, and behind them those of each thread. */
export function counterCells(threads: number): CounterCells {
  return new Int32Array(new SharedArrayBuffer(4 * CELLS_EACH * (1 + threads)));
}

/** The counters as a thread has them, counted from 0. */
export function countersOf(cells: CounterCells, thread: number): BudgetCounters {
  return {
    pages: new SharedCounter(cells, thread, PAGES),
    clients: new SharedCounter(cells, thread, CLIENTS),
  };
}

/** Takes out of the sums what a thread that is no more has left there. */
export function removeThread(cells: CounterCells, thread: number): void {
  for (const cell of [PAGES, CLIENTS]) {
    Atomics.sub(cells, cell, Atomics.exchange(cells, partOf(thread, cell), 0));
  }
}

class SharedCounter implements BudgetCounter {
  readonly #cells: CounterCells;
  readonly #sum: number;
  readonly #part: number;

  constructor(cells: CounterCells, thread: number, cell: number) {
    this.#cells = cells;
    this.#sum = cell;
    this.#part = partOf(thread, cell);
  }

  get(): number {
    return Atomics.load(this.#cells, this.#sum);
  }

  add(change: number): number {
    Atomics.add(this.#cells, this.#part, change);
    return Atomics.add(this.#cells, this.#sum, change);
  }
}

function partOf(thread: number, cell: number): number {
  return CELLS_EACH * (1 + thread) + cell;
}
