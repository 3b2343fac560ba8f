/** Jobs of a graph without a daemon, as a page shows and begins them. */
import { AllowedFiles } from '#dist/daemon/core/index.js';
import {
  type BackupWish,
  prepareBackup,
  type SteeredJob,
  type WatchedJob,
  type WatchedJobs,
} from '#dist/daemon/watch/index.js';
import type { Graph } from '#dist/graph/index.js';

export class GraphJobs implements WatchedJobs {
  readonly #graph: Graph;
  readonly #files: AllowedFiles;
  #jobs: WatchedJob[] = [];
  #count = 0;

  /** @param folders where new files may be made, and below. */
  constructor(graph: Graph, folders: readonly string[]) {
    this.#graph = graph;
    this.#files = new AllowedFiles(folders);
  }

  list(): readonly WatchedJob[] {
    return this.#jobs;
  }

  add(type: string, nodes: readonly string[], job: SteeredJob): WatchedJob {
    this.#count++;
    const watched = { id: `${type}-${this.#count}`, type, nodes, job };
    this.#jobs.push(watched);
    return watched;
  }

  async startBackup(wish: BackupWish): Promise<WatchedJob> {
    this.#graph.node(wish.node);
    const { begin } = await prepareBackup(this.#graph, wish, this.#files.check(wish.target));
    return this.add('backup', [wish.node], begin().register());
  }

  dismiss(id: string): void {
    this.#jobs = this.#jobs.filter((one) => one.id !== id);
  }
}
