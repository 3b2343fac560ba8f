import type { DirtyBitmapInfo } from '../../bitmap/index.js';
import type { GraphState } from './state.js';

/** A graph as it is at a moment: plain JSON. */
export interface GraphPicture {
  /** In the order in which they were added. */
  readonly nodes: readonly NodePicture[];
  /** Exports and jobs. */
  readonly users: readonly UserPicture[];
  /** Every use of a node. */
  readonly edges: readonly EdgePicture[];
}

/** A node. */
export interface NodePicture {
  /** What it is called in the graph. */
  readonly name: string;
  /** The name of its driver: `qcow2`, `throttle` and so on. */
  readonly driver: string;
  /** Bytes. */
  readonly size: number;
  /** Whether its device is open for writing. */
  readonly writable: boolean;
  /** The path or URI of its device. */
  readonly device: string;
  /** Its named bitmaps. */
  readonly bitmaps: readonly DirtyBitmapInfo[];
}

/** An export or a job. */
export interface UserPicture {
  /** What it is called in the graph. */
  readonly name: string;
  /** What it is: `export`, for example. */
  readonly kind: string;
  /** Whether it may write. */
  readonly writable: boolean;
}

/** A use of a node. */
export interface EdgePicture {
  /** The node, export or job that uses it. */
  readonly parent: string;
  /** As what: `file`, `backing` and so on. */
  readonly child: string;
  /** The node that is used. */
  readonly node: string;
}

/** @internal */
export function picture({ nodes, roots, edges }: GraphState): GraphPicture {
  return {
    nodes: [...nodes.values()].map(({ name, driverName, size, writable, device, bitmaps }) => ({
      name,
      driver: driverName,
      size,
      writable,
      device: device.name,
      bitmaps,
    })),
    users: [...roots.values()].map(({ name, what, capabilities }) => ({
      name,
      kind: what,
      writable: capabilities.write,
    })),
    edges: edgePictures({ edges }),
  };
}

/** @internal */
export function edgePictures({ edges }: Pick<GraphState, 'edges'>): EdgePicture[] {
  return [...edges].map(({ parent, key, to }) => ({
    parent: parent.name,
    child: key,
    node: to.name,
  }));
}

/** @internal The picture in the language of Graphviz: `dot -Tsvg`. */
export function toDot({ nodes, users, edges }: GraphPicture): string {
  const lines = [
    ...users.map(
      ({ name, kind }) => `${quoted(name)} [shape=ellipse, label=${quoted(`${kind} ${name}`)}];`,
    ),
    ...nodes.map(
      ({ name, driver }) => `${quoted(name)} [shape=box, label=${quoted(`${name}\n${driver}`)}];`,
    ),
    ...edges.map(
      ({ parent, child, node }) => `${quoted(parent)} -> ${quoted(node)} [label=${quoted(child)}];`,
    ),
  ];
  return `digraph {\n${lines.map((line) => `  ${line}\n`).join('')}}\n`;
}

function quoted(text: string): string {
  return `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')}"`;
}
