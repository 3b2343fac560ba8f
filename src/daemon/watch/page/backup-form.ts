import { change } from './api.js';
import { byId, element, setText } from './dom.js';
import type { Graph } from './types.js';

/** The form that begins a backup. */
export class BackupForm {
  readonly #dialog = byId<HTMLDialogElement>('backup-dialog');
  readonly #node = byId<HTMLSelectElement>('backup-node');
  readonly #target = byId<HTMLInputElement>('backup-target');
  readonly #format = byId<HTMLSelectElement>('backup-format');
  readonly #rate = byId<HTMLInputElement>('backup-rate');
  #graph: Graph = { nodes: [], users: [], edges: [] };

  constructor() {
    byId('backup-no').addEventListener('click', () => this.#dialog.close());
    byId('backup-form').addEventListener('submit', (event) => {
      event.preventDefault();
      void this.#begin();
    });
  }

  show(graph: Graph): void {
    this.#graph = graph;
  }

  /** @param node the one that is chosen already. */
  open(node?: string): void {
    const { nodes, edges } = this.#graph;
    // What others use and nothing lies above is most likely meant.
    const used = new Set(edges.filter(({ child }) => child === 'root').map((edge) => edge.node));
    const chosen = node ?? nodes.find(({ name }) => used.has(name))?.name;
    this.#node.replaceChildren(
      ...nodes.map(({ name }) => element('option', { value: name }, name)),
    );
    if (chosen !== undefined) this.#node.value = chosen;
    setText(byId('backup-failure'), '');
    this.#dialog.showModal();
  }

  async #begin(): Promise<void> {
    const mebibytes = Number(this.#rate.value);
    const body = {
      node: this.#node.value,
      target: this.#target.value.trim(),
      format: this.#format.value,
      ...(mebibytes > 0 && { rate: Math.max(1, Math.round(mebibytes * 2 ** 20)) }),
    };
    try {
      if (await change('/jobs', body)) this.#dialog.close();
    } catch (error) {
      setText(byId('backup-failure'), (error as Error).message);
    }
  }
}
