import type { Node } from './node.js';
import type { EdgeChange } from './replacement.js';
import type { BitmapChange, Changes } from './transaction.js';

type IsOver = () => boolean;

/** Several changes as one: all of it happens at one moment. */
export function joinedChanges(all: readonly Partial<Changes>[]): Partial<Changes> {
  const removed = all.flatMap((one) => one.removed ?? []);
  const bitmaps = byNode(all.flatMap((one) => one.bitmaps ?? []));
  return {
    edges: pastRemoved(
      all.flatMap(({ edges = [] }) => edges),
      removed,
    ),
    bitmaps,
    begins: all.flatMap(({ begins = [] }) => begins),
    removed,
    ended: all.flatMap(({ ended = [] }) => ended),
    joined: all.flatMap(({ joined = [] }) => joined),
    ...(all.some(({ prepare }) => prepare) && { prepare: (isOver) => prepareAll(all, isOver) }),
    ...(all.some(({ name }) => name) && { name: (isOver) => nameAll(all, isOver) }),
  };
}

/** A user of a filter that goes comes to use what the users of the filter below that one come to use, where that one goes too. */
function pastRemoved(edges: readonly EdgeChange[], removed: readonly Node[]): EdgeChange[] {
  const next = new Map(edges.map(({ expected, replacement }) => [expected, replacement]));
  return edges.map((change) => {
    let { replacement } = change;
    while (removed.includes(replacement) && next.has(replacement)) {
      replacement = next.get(replacement)!;
    }
    return { ...change, replacement };
  });
}

/** What is done to the bitmaps of a node is one change, in order. What gets bits of another node comes last, when those are as they shall be. */
function byNode(changes: readonly BitmapChange[]): BitmapChange[] {
  const all = [...new Set(changes.map(({ node }) => node))].map((node) => {
    const own = changes.filter((change) => change.node === node);
    const actions = own.flatMap((change) => change.actions);
    if (own.every(({ now }) => now === undefined)) return { node, actions };
    return { node, actions, now: () => own.flatMap((change) => change.now?.() ?? change.actions) };
  });
  return [
    ...all.filter((change) => !readsOthers(change)),
    ...all.filter((change) => readsOthers(change)),
  ];
}

function readsOthers({ node, actions }: BitmapChange): boolean {
  const { bitmaps } = node.log;
  return actions.some(
    (action) =>
      action.type === 'merge' &&
      action.sources.some(
        (source) => typeof source === 'object' && 'bitmaps' in source && source.bitmaps !== bitmaps,
      ),
  );
}

/** Side by side, as nobody writes meanwhile. Where one fails, the others have ended too. */
async function prepareAll(all: readonly Partial<Changes>[], isOver: IsOver): Promise<void> {
  const results = await Promise.allSettled(all.map(({ prepare }) => prepare?.(isOver)));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}

async function nameAll(all: readonly Partial<Changes>[], isOver: IsOver): Promise<void> {
  for (const { name } of all) {
    if (isOver()) return;
    await name?.(isOver);
  }
}
