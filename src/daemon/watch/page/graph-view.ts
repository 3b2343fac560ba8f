import { byId, element, keep, setAttributes, setText, svg } from './dom.js';
import { counted, nodeSize, rate } from './format.js';
import { BOX_HEIGHT, BOX_WIDTH, type LaidEdge, layOut } from './layout.js';
import type { Graph, Traffic } from './types.js';

/** A box of the picture. */
interface Box {
  readonly name: string;
  readonly kind: string;
  readonly title: string;
  readonly detail: string;
  /** For those who hear the page. */
  readonly label: string;
  readonly x: number;
  readonly y: number;
}

interface Edge extends LaidEdge {
  readonly label: string;
}

/** Bytes per second at a node, since the last look. */
interface Flow {
  readonly read: number;
  readonly written: number;
}

const LEAST_SCALE = 0.7;

/** The picture of the graph, which keeps its boxes while they move. */
export class GraphView {
  readonly #picture = svg('svg', {
    class: 'graph',
    role: 'group',
    'aria-label': 'Nodes and who uses them',
  });
  readonly #edges = svg('g', { 'aria-hidden': 'true' });
  readonly #boxes = svg('g');
  readonly #onBackup: (node: string) => void;
  #places: ReadonlyMap<string, { x: number; y: number }> = new Map();
  #graph: Graph = { nodes: [], users: [], edges: [] };
  #flows = new Map<string, Flow>();
  #before: { at: number; traffic: Readonly<Record<string, Traffic>> } | undefined;
  #selected: string | undefined;

  constructor(onBackup: (node: string) => void) {
    this.#onBackup = onBackup;
    this.#picture.append(arrow(), this.#edges, this.#boxes);
    byId('graph').append(this.#picture);
  }

  show(graph: Graph): void {
    this.#graph = graph;
    setText(
      byId('graph-count'),
      `${counted(graph.nodes.length, 'node')}, ${counted(graph.users.length, 'user')}`,
    );
    const ids = [...graph.users, ...graph.nodes].map(({ name }) => name);
    const links = graph.edges.map(({ parent, node }) => ({ from: parent, to: node }));
    const { width, height, places, edges } = layOut(
      ids,
      links,
      new Set(graph.users.map(({ name }) => name)),
    );
    this.#places = places;
    setAttributes(this.#picture, { viewBox: `0 0 ${width} ${height}`, width, height });
    // It may become smaller to fit in, as long as it can be read.
    this.#picture.style.minWidth = `${LEAST_SCALE * width}px`;
    this.#showBoxes(places);
    this.#showEdges(edges.map((edge, i) => ({ ...edge, label: graph.edges[i].child })));
    this.#showSelection();
  }

  /** How far down something is in the picture. */
  depth(name: string): number {
    return this.#places.get(name)?.y ?? 0;
  }

  /** What passes at the nodes now. */
  flow(traffic: Readonly<Record<string, Traffic>>, at: number): void {
    const before = this.#before;
    if (before !== undefined && at - before.at < 900) return;
    this.#before = { at, traffic };
    if (before === undefined) return;
    const seconds = (at - before.at) / 1000;
    this.#flows = new Map(
      Object.entries(traffic).map(([node, now]) => {
        const then = before.traffic[node] ?? { readBytes: 0, writtenBytes: 0 };
        const per = (count: number) => Math.max(0, count) / seconds;
        const read = per(now.readBytes - then.readBytes);
        return [node, { read, written: per(now.writtenBytes - then.writtenBytes) }];
      }),
    );
    for (const box of this.#boxes.children) this.#showFlow(box as SVGGElement);
    for (const edge of this.#edges.children) {
      setAttributes(edge, {
        class: `edge${this.#isBusy((edge as SVGElement).dataset.to!) ? ' busy' : ''}`,
      });
    }
    this.#showSelection();
  }

  #isBusy(node: string): boolean {
    const flow = this.#flows.get(node);
    return flow !== undefined && flow.read + flow.written > 0;
  }

  #showBoxes(places: ReadonlyMap<string, { x: number; y: number }>): void {
    keep(this.#boxes, this.#all(places), {
      key: ({ name }) => name,
      make: (box) => this.#makeBox(box),
      update: (made, { kind, title, detail, label, x, y, name }) => {
        const isSelected = this.#selected === name;
        setAttributes(made, {
          class: `box ${kind}${isSelected ? ' selected' : ''}`,
          'aria-label': label,
          'aria-pressed': String(isSelected),
        });
        made.style.transform = `translate(${x - BOX_WIDTH / 2}px, ${y - BOX_HEIGHT / 2}px)`;
        const [heading, line] = made.querySelectorAll('text');
        setText(heading, title);
        made.dataset.detail = detail;
        if (!made.classList.contains('busy')) setText(line, detail);
      },
    });
  }

  #all(places: ReadonlyMap<string, { x: number; y: number }>): Box[] {
    const { nodes, users, edges } = this.#graph;
    const usersOf = (name: string) =>
      edges.filter(({ node }) => node === name).map(({ parent }) => parent);
    const boxes = [
      ...users.map(({ name, kind, writable }) => ({
        ...{ name, kind: kind === 'export' ? 'export' : 'job', title: short(name) },
        detail: `${kind}, ${writable ? 'writes' : 'reads'}`,
        label: `${kind} ${name}, uses ${edges.find(({ parent }) => parent === name)?.node ?? 'nothing'}`,
        ...places.get(name)!,
      })),
      ...nodes.map(({ name, driver, size, writable }) => ({
        ...{ name, kind: `node${writable ? '' : ' readonly'}`, title: short(name) },
        detail: `${driver}, ${nodeSize(size)}`,
        label: `node ${name}, ${driver}, ${nodeSize(size)}, used by ${usersOf(name).join(', ') || 'nobody'}`,
        ...places.get(name)!,
      })),
    ];
    // As they are read: the way of those who use the keyboard.
    return boxes.sort((a, b) => a.y - b.y || a.x - b.x);
  }

  #makeBox({ name, kind }: Box): SVGGElement {
    const radius = kind.startsWith('node') ? 10 : BOX_HEIGHT / 2;
    const box = svg(
      'g',
      { tabindex: 0, role: 'button', class: 'box' },
      svg('rect', { width: BOX_WIDTH, height: BOX_HEIGHT, rx: radius }),
      svg('text', { class: 'name', x: BOX_WIDTH / 2, y: 22 }),
      svg('text', { class: 'detail', x: BOX_WIDTH / 2, y: 40 }),
    );
    const select = () => this.#select(name);
    box.addEventListener('click', select);
    box.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' && event.key !== ' ') return;
      event.preventDefault();
      select();
    });
    return box;
  }

  #showFlow(box: SVGGElement): void {
    const name = box.dataset.key!;
    const isBusy = this.#isBusy(name);
    box.classList.toggle('busy', isBusy);
    const { read, written } = this.#flows.get(name) ?? { read: 0, written: 0 };
    const text = [read > 0 ? `R ${rate(read)}` : '', written > 0 ? `W ${rate(written)}` : ''];
    setText(
      box.querySelectorAll('text')[1],
      isBusy ? text.filter(Boolean).join(' · ') : box.dataset.detail!,
    );
  }

  #showEdges(edges: readonly Edge[]): void {
    keep(this.#edges, edges, {
      key: ({ from, to, label }) => `${from} ${label} ${to}`,
      make: ({ to }) => {
        const made = svg(
          'g',
          { class: 'edge' },
          svg('path', { 'marker-end': 'url(#arrow)' }),
          svg('text'),
        );
        made.dataset.to = to;
        return made;
      },
      update: (made, { points, label }) => {
        setAttributes(made.querySelector('path')!, { d: curve(points) });
        const text = made.querySelector('text')!;
        const [x, y] = middle(points);
        setAttributes(text, { x: x + 6, y });
        setText(text, label === 'root' ? '' : label);
      },
    });
  }

  #select(name: string): void {
    this.#selected = this.#selected === name ? undefined : name;
    this.show(this.#graph);
  }

  /** What is known of the box that was chosen. */
  #showSelection(): void {
    const node = this.#graph.nodes.find(({ name }) => name === this.#selected);
    const where = byId('selection');
    if (node === undefined) {
      where.replaceChildren();
      return;
    }
    const { name, driver, size, device, writable } = node;
    keep(where, [name], {
      key: (key) => key,
      make: () => {
        const button = element('button', { type: 'button', class: 'plain' }, 'Back it up');
        button.addEventListener('click', () => this.#onBackup(name));
        return element('div', { class: 'selected-node' }, element('p'), button);
      },
      update: (made) => {
        const how = writable ? 'open for writing' : 'open for reading';
        setText(
          made.querySelector('p')!,
          `${name}: ${driver}, ${nodeSize(size)}, ${how}, ${device}`,
        );
      },
    });
  }
}

function short(name: string): string {
  return name.length > 20 ? `${name.slice(0, 9)}…${name.slice(-10)}` : name;
}

function arrow(): SVGDefsElement {
  const shape = svg('path', { d: 'M0 1 L7 4 L0 7 Z' });
  return svg(
    'defs',
    {},
    svg(
      'marker',
      {
        id: 'arrow',
        viewBox: '0 0 8 8',
        refX: 7,
        refY: 4,
        markerWidth: 8,
        markerHeight: 8,
        orient: 'auto',
      },
      shape,
    ),
  );
}

/** A line that leaves downwards and arrives from above, at every point. */
function curve(points: LaidEdge['points']): string {
  const [[x0, y0]] = points;
  let path = `M${x0} ${y0}`;
  for (let i = 1; i < points.length; i++) {
    const [[fromX, fromY], [x, y]] = [points[i - 1], points[i]];
    const bend = (y - fromY) / 2;
    path += ` C${fromX} ${fromY + bend} ${x} ${y - bend} ${x} ${y}`;
  }
  return path;
}

function middle(points: LaidEdge['points']): readonly [number, number] {
  const at = Math.floor((points.length - 1) / 2);
  const [[ax, ay], [bx, by]] = [points[at], points[at + 1]];
  return [(ax + bx) / 2, (ay + by) / 2 + 4];
}
