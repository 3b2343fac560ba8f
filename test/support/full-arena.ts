import assert from 'node:assert/strict';
import type { Arena } from 'lacuna/bitmap';

/** Takes all of an arena but the last `spare` blocks that fit; returns what gives it back. */
export function fillArena(arena: Arena, spare: number): () => void {
  const blocks: { free(): void }[] = [];
  for (const length of [65536, 4096, 512, 64]) {
    assert.throws(() => {
      for (;;) blocks.push(arena.allocate(length));
    });
  }
  for (let i = spare; i > 0; i--) blocks.pop()?.free();
  return () => {
    for (const block of blocks) block.free();
  };
}
