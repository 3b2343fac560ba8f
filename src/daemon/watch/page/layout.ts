/** Where the boxes of a graph go: in layers, users above what they use, with few crossings. */

export interface LaidEdge {
  readonly from: string;
  readonly to: string;
  /** From the lower side of the one to the upper side of the other, around what lies between. */
  readonly points: readonly (readonly [x: number, y: number])[];
}

export interface Layout {
  readonly width: number;
  readonly height: number;
  /** The middle of each box. */
  readonly places: ReadonlyMap<string, { readonly x: number; readonly y: number }>;
  readonly edges: readonly LaidEdge[];
}

export const BOX_WIDTH = 172;
export const BOX_HEIGHT = 52;
const GAP = 28;
const LAYER = 104;
/** Room for an edge that passes between boxes. */
const PASSAGE = 20;
const MARGIN = 12;
const SWEEPS = 6;

interface Spot {
  readonly id: string;
  readonly layer: number;
  /** A box, or an edge on its way. */
  readonly width: number;
  x: number;
  readonly above: Spot[];
  readonly below: Spot[];
}

/** @param tops what nobody uses, and lies above all: exports and jobs. */
export function layOut(
  ids: readonly string[],
  links: readonly { readonly from: string; readonly to: string }[],
  tops: ReadonlySet<string>,
): Layout {
  const depths = depthsOf(ids, links, tops);
  const layers: Spot[][] = [];
  const spots = new Map<string, Spot>();
  for (const id of ids) spots.set(id, addSpot(layers, id, depths.get(id)!, BOX_WIDTH));
  const chains = links.flatMap(({ from, to }) => {
    const [start, end] = [spots.get(from), spots.get(to)];
    return start && end ? [chainOf(layers, start, end)] : [];
  });
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const isDown = sweep % 2 === 0;
    for (const layer of isDown ? layers : [...layers].reverse()) order(layer, isDown);
  }
  place(layers);
  return finished(layers, ids, spots, chains);
}

/** Each one below all that use it. What lies in a circle, which no graph has, is left where it is met. */
function depthsOf(
  ids: readonly string[],
  links: readonly { readonly from: string; readonly to: string }[],
  tops: ReadonlySet<string>,
): Map<string, number> {
  const users = new Map<string, string[]>(ids.map((id) => [id, []]));
  for (const { from, to } of links) users.get(to)?.push(from);
  const depths = new Map<string, number>();
  const hasTops = ids.some((id) => tops.has(id));
  const depthOf = (id: string, path: ReadonlySet<string>): number => {
    const known = depths.get(id);
    if (known !== undefined) return known;
    if (path.has(id) || !users.has(id)) return 0;
    const above = users.get(id)!.map((user) => depthOf(user, new Set([...path, id])) + 1);
    const depth = Math.max(tops.has(id) || !hasTops ? 0 : 1, ...above);
    depths.set(id, depth);
    return depth;
  };
  for (const id of ids) depthOf(id, new Set());
  return depths;
}

function addSpot(layers: Spot[][], id: string, layer: number, width: number): Spot {
  while (layers.length <= layer) layers.push([]);
  const spot: Spot = { id, layer, width, x: 0, above: [], below: [] };
  layers[layer].push(spot);
  return spot;
}

/** An edge, with a spot in each layer that it passes. */
function chainOf(layers: Spot[][], start: Spot, end: Spot): Spot[] {
  const chain = [start];
  for (let layer = start.layer + 1; layer < end.layer; layer++) {
    chain.push(addSpot(layers, '', layer, PASSAGE));
  }
  chain.push(end);
  for (let i = 1; i < chain.length; i++) {
    chain[i - 1].below.push(chain[i]);
    chain[i].above.push(chain[i - 1]);
  }
  return chain;
}

/** Sorts a layer by the middle of the neighbours of each, and gives each its number in it. */
function order(layer: Spot[], isDown: boolean): void {
  const wanted = new Map(
    layer.map((spot, i) => {
      const others = isDown ? spot.above : spot.below;
      return [spot, others.length === 0 ? i : mean(others)];
    }),
  );
  layer.sort((a, b) => wanted.get(a)! - wanted.get(b)!);
  layer.forEach((spot, i) => {
    spot.x = i;
  });
}

function mean(spots: readonly Spot[]): number {
  return spots.reduce((sum, { x }) => sum + x, 0) / spots.length;
}

/** Puts all at their places: side by side first, then towards the middle of their neighbours. */
function place(layers: readonly Spot[][]): void {
  for (const layer of layers)
    pushApart(
      layer,
      layer.map(() => 0),
    );
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const isDown = sweep % 2 === 0;
    for (const layer of isDown ? layers : [...layers].reverse()) {
      const wanted = layer.map((spot) => {
        const others = isDown ? spot.above : spot.below;
        return others.length === 0 ? spot.x : mean(others);
      });
      pushApart(layer, wanted);
    }
  }
}

/** Gives each the place that it wants, or the next one where its neighbour leaves it room; on average nobody moves. */
function pushApart(layer: readonly Spot[], wanted: readonly number[]): void {
  let free = Number.NEGATIVE_INFINITY;
  layer.forEach((spot, i) => {
    spot.x = Math.max(wanted[i], free + spot.width / 2);
    free = spot.x + spot.width / 2 + GAP;
  });
  const shift = layer.reduce((sum, spot, i) => sum + spot.x - wanted[i], 0) / layer.length;
  for (const spot of layer) spot.x -= shift;
}

function finished(
  layers: readonly Spot[][],
  ids: readonly string[],
  spots: ReadonlyMap<string, Spot>,
  chains: readonly Spot[][],
): Layout {
  const all = layers.flat();
  const left = Math.min(0, ...all.map(({ x, width }) => x - width / 2));
  const right = Math.max(0, ...all.map(({ x, width }) => x + width / 2));
  const at = (spot: Spot) => ({
    x: Math.round(spot.x - left + MARGIN),
    y: spot.layer * LAYER + BOX_HEIGHT / 2 + MARGIN,
  });
  const edges = chains.map((chain) => {
    const points = chain.map((spot, i): readonly [number, number] => {
      const { x, y } = at(spot);
      const side = i === 0 ? BOX_HEIGHT / 2 : i === chain.length - 1 ? -BOX_HEIGHT / 2 : 0;
      return [x, y + side];
    });
    return { from: chain[0].id, to: chain.at(-1)!.id, points };
  });
  return {
    width: right - left + 2 * MARGIN,
    height: Math.max(0, (layers.length - 1) * LAYER + BOX_HEIGHT) + 2 * MARGIN,
    places: new Map(ids.map((id) => [id, at(spots.get(id)!)])),
    edges,
  };
}
