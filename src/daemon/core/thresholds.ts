import type { Graph, Node } from '../../graph/index.js';
import type { Tell } from './daemon-job.js';
import { refusal } from './refusal.js';

/** So often it is looked how large files are. */
const LOOK_MS = 100;

/** Sizes of files of images at whose excess clients are told, once each. */
export class Thresholds {
  readonly #graph: Graph;
  readonly #tell: Tell;
  readonly #set = new Map<string, { readonly node: Node; readonly bytes: number }>();
  #timer: NodeJS.Timeout | undefined;

  constructor(graph: Graph, tell: Tell) {
    this.#graph = graph;
    this.#tell = tell;
  }

  /** The threshold of a node; 0 for none. */
  of(name: string): number {
    return this.#set.get(name)?.bytes ?? 0;
  }

  /** @param bytes 0 for none. @throws QmpCommandError */
  set(name: string, bytes: number): void {
    const node = this.#graph.nodes.find((one) => one.name === name);
    if (node === undefined) throw refusal(`Device '${name}' not found`);
    if (bytes === 0) {
      this.#set.delete(name);
      return;
    }
    if (!node.grows) {
      throw refusal(
        `a threshold is for the file of an image that is open for writing, which '${name}' is not`,
      );
    }
    this.#set.set(name, { node, bytes });
    this.#timer ??= setInterval(() => this.#look(), LOOK_MS);
    this.#timer.unref();
  }

  /** Nobody is told any more. */
  close(): void {
    clearInterval(this.#timer);
    this.#set.clear();
  }

  #look(): void {
    for (const [name, { node, bytes }] of this.#set) {
      const isThere = this.#graph.nodes.includes(node);
      if (isThere && node.device.end <= bytes) continue;
      this.#set.delete(name);
      if (!isThere) continue;
      this.#tell('BLOCK_WRITE_THRESHOLD', {
        'node-name': name,
        'amount-exceeded': node.device.end - bytes,
        'write-threshold': bytes,
      });
    }
  }
}
