import { Arena } from '../../wasm/index.js';

const idle: Arena[] = [];

/**
 * An arena that no other copy uses meanwhile. A worker that is ended from outside may leave a lock of its
 * arena held, and must spoil nothing but its own copy.
 */
export function takeArena(): Arena {
  return idle.pop() ?? Arena.create();
}

/**
 * Keeps an arena for the next copy, so that the memory it has touched is used again. Only for one that is
 * known to be sound: after a failure, leave it to the garbage collector.
 */
export function freeArena(arena: Arena): void {
  idle.push(arena);
}
