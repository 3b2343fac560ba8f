import { diskMap } from './api.js';
import { byId, element, keep, setAttributes, setText } from './dom.js';
import { bytes, counted } from './format.js';
import type { Bitmap, DiskMap, Graph, GraphNode, Traffic } from './types.js';

const COLUMNS = 64;
/** Between two looks at a disk that is written, and at one that is not. */
const BUSY_MS = 2000;
const QUIET_MS = 15_000;

/** A card of a disk. */
interface Card {
  readonly node: GraphNode;
}

/** The disks with maps of what they have where, and their bitmaps. */
export class DisksView {
  readonly #asked = new Map<string, { at: number; written: number; bitmap: string | undefined }>();
  readonly #chosen = new Map<string, string>();
  #nodes: readonly GraphNode[] = [];
  #traffic: Readonly<Record<string, Traffic>> = {};
  readonly #maps = new Map<string, DiskMap>();
  #isAsking = false;

  constructor() {
    setInterval(() => void this.#look(), 500);
    // Colours are drawn into the maps.
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
      for (const [name, map] of this.#maps) this.#showMap(name, map);
    });
  }

  /** @param depth how far down a node is in the picture: what is used comes first. */
  show(graph: Graph, depth: (node: string) => number): void {
    this.#nodes = disksOf(graph).sort((a, b) => depth(a.name) - depth(b.name));
    const names = new Set(this.#nodes.map(({ name }) => name));
    for (const gone of this.#maps.keys()) if (!names.has(gone)) this.#maps.delete(gone);
    for (const gone of this.#asked.keys()) if (!names.has(gone)) this.#asked.delete(gone);
    byId('no-disks').hidden = this.#nodes.length > 0;
    const cards = this.#nodes.map((node): Card => ({ node }));
    keep(byId('disk-list'), cards, {
      key: ({ node }) => node.name,
      make: ({ node }) => makeCard(node),
      update: (made, { node }) => this.#update(made, node),
    });
  }

  traffic(traffic: Readonly<Record<string, Traffic>>): void {
    this.#traffic = traffic;
  }

  #update(made: HTMLElement, { name, driver, size, bitmaps }: GraphNode): void {
    setText(made.querySelector('.what')!, `${driver}, ${bytes(size)}`);
    const chosen =
      bitmaps.find((one) => one.name === this.#chosen.get(name)) ?? bitmaps.find(isUsable);
    keep(made.querySelector('.bitmaps')!, bitmaps, {
      key: (bitmap) => bitmap.name,
      make: (bitmap) => this.#bitmapLine(name, bitmap),
      update: (line, bitmap) => {
        const input = line.querySelector('input')!;
        input.disabled = !isUsable(bitmap);
        input.checked = bitmap.name === chosen?.name;
        setText(line.querySelector('.quiet')!, factsOf(bitmap));
        setAttributes(line, { class: bitmap.inconsistent ? 'bitmap bad' : 'bitmap' });
      },
    });
    const asked = this.#asked.get(name);
    if (asked !== undefined && asked.bitmap !== chosen?.name) this.#asked.delete(name);
    made.dataset.bitmap = chosen?.name ?? '';
  }

  #bitmapLine(node: string, { name }: Bitmap): HTMLLIElement {
    const input = element('input', { type: 'radio', name: `bitmap of ${node}` });
    input.addEventListener('change', () => {
      this.#chosen.set(node, name);
      this.#asked.delete(node);
    });
    const label = element(
      'label',
      {},
      input,
      element('span', {}, name),
      element('span', { class: 'quiet' }),
    );
    return element('li', { class: 'bitmap' }, label);
  }

  /** Asks for one map at a time, of the disks that can be seen and have changed. */
  async #look(): Promise<void> {
    if (this.#isAsking || document.hidden) return;
    const now = performance.now();
    const node = this.#nodes.find(({ name }) => this.#isDue(name, now));
    if (node === undefined) return;
    this.#isAsking = true;
    const card = cardOf(node.name);
    const bitmap = card?.dataset.bitmap || undefined;
    this.#asked.set(node.name, { at: now, written: this.#written(node.name), bitmap });
    try {
      const map = await diskMap(node.name, bitmap);
      this.#maps.set(node.name, map);
      this.#showMap(node.name, map);
    } catch (error) {
      if (card !== undefined) setText(card.querySelector('.summary')!, (error as Error).message);
    } finally {
      this.#isAsking = false;
    }
  }

  #showMap(name: string, map: DiskMap): void {
    const card = cardOf(name);
    if (card !== undefined) showMap(card, map);
  }

  #isDue(name: string, now: number): boolean {
    const asked = this.#asked.get(name);
    if (asked === undefined) return true;
    const isWritten = this.#written(name) !== asked.written;
    return now - asked.at > (isWritten ? BUSY_MS : QUIET_MS) && isSeen(name);
  }

  #written(name: string): number {
    return this.#traffic[name]?.writtenBytes ?? 0;
  }
}

/** Neither filters, which show what is below them, nor the files of images, which have the same bytes in another order. */
function disksOf({ nodes, edges }: Graph): GraphNode[] {
  const sizes = new Map(nodes.map(({ name, size }) => [name, size]));
  const below = edges.filter(({ child }) => child === 'file');
  const filters = new Set(
    below
      .filter(({ parent, node }) => sizes.get(parent) === sizes.get(node))
      .map(({ parent }) => parent),
  );
  const files = new Set(below.filter(({ parent }) => !filters.has(parent)).map(({ node }) => node));
  return nodes.filter(({ name }) => !filters.has(name) && !files.has(name));
}

function isUsable({ inconsistent, dirtyBytes }: Bitmap): boolean {
  return !inconsistent && dirtyBytes !== null;
}

function factsOf({
  granularity,
  dirtyBytes,
  recording,
  busy,
  persistent,
  inconsistent,
}: Bitmap): string {
  if (inconsistent) return 'inconsistent: it may lack writes';
  const dirty = dirtyBytes === null ? 'not loaded' : `${bytes(dirtyBytes)} dirty`;
  const facts = [
    dirty,
    `a bit for ${bytes(granularity)}`,
    recording ? 'recording' : 'not recording',
  ];
  if (busy) facts.push('in use');
  if (persistent) facts.push('kept');
  return facts.join(', ');
}

function cardOf(name: string): HTMLElement | undefined {
  const cards = [...byId('disk-list').children] as HTMLElement[];
  return cards.find((card) => card.dataset.key === name);
}

function isSeen(name: string): boolean {
  const box = cardOf(name)?.getBoundingClientRect();
  return box !== undefined && box.bottom > 0 && box.top < innerHeight;
}

function makeCard({ name }: GraphNode): HTMLElement {
  return element(
    'article',
    { class: 'disk', 'aria-label': `Disk ${name}` },
    element('h3', {}, name),
    element('p', { class: 'quiet what' }),
    element('canvas', {
      class: 'map',
      role: 'img',
      'aria-label': `Map of ${name}`,
      width: 768,
      height: 96,
    }),
    element('p', { class: 'quiet summary' }, 'Looking'),
    element('ul', { class: 'bitmaps' }),
  );
}

function showMap(card: HTMLElement, map: DiskMap): void {
  const canvas = card.querySelector('canvas')!;
  const sum = (list: readonly number[] = []) => list.reduce((total, one) => total + one, 0);
  const [data, zero, hole, dirty] = [map.data, map.zero, map.hole, map.dirty].map(sum);
  const parts = [`${bytes(data)} data`, `${bytes(zero)} zero`, `${bytes(hole)} hole`];
  if (map.bitmap !== undefined) parts.push(`${bytes(dirty)} dirty in ${map.bitmap}`);
  if (!map.isWhole) parts.push('the rest was not asked: it is in very many pieces, or slow');
  const summary = parts.join(', ');
  setText(card.querySelector('.summary')!, summary);
  setAttributes(canvas, {
    'aria-label': `Map of ${map.node}: ${summary}`,
    title: `${counted(map.data.length, 'part')} of ${bytes(map.cellBytes)}`,
  });
  draw(canvas, map);
}

/** Colours follow the theme. */
function draw(canvas: HTMLCanvasElement, map: DiskMap): void {
  const style = getComputedStyle(canvas);
  const colour = (name: string) => style.getPropertyValue(`--${name}`).trim();
  const colours = {
    data: colour('data'),
    zero: colour('zero'),
    hole: colour('hole'),
    dirty: colour('dirty'),
  };
  const rows = Math.ceil(map.data.length / COLUMNS);
  const cell = 12;
  const scale = Math.max(1, Math.round(devicePixelRatio));
  setAttributes(canvas, { width: COLUMNS * cell * scale, height: rows * cell * scale });
  const pen = canvas.getContext('2d')!;
  pen.scale(scale, scale);
  pen.clearRect(0, 0, COLUMNS * cell, rows * cell);
  for (let i = 0; i < map.data.length; i++) {
    const x = (i % COLUMNS) * cell;
    const y = Math.floor(i / COLUMNS) * cell;
    const all = map.data[i] + map.zero[i] + map.hole[i];
    if (all === 0) continue;
    pen.globalAlpha = 1;
    pen.fillStyle = map.hole[i] >= map.zero[i] ? colours.hole : colours.zero;
    pen.fillRect(x + 1, y + 1, cell - 2, cell - 2);
    if (map.data[i] > 0) {
      // A little data is still to be seen.
      pen.globalAlpha = 0.35 + 0.65 * (map.data[i] / all);
      pen.fillStyle = colours.data;
      pen.fillRect(x + 1, y + 1, cell - 2, cell - 2);
    }
    const dirty = map.dirty?.[i] ?? 0;
    if (dirty === 0) continue;
    pen.globalAlpha = 1;
    pen.fillStyle = colours.dirty;
    const height = Math.max(3, Math.round((cell - 2) * Math.min(1, dirty / all) * 0.6));
    pen.fillRect(x + 1, y + cell - 1 - height, cell - 2, height);
  }
}
