import { realpath } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, relative } from 'node:path';
import type { BackupJobReport, Graph, NodeDescription } from '../../../graph/index.js';
import type { Job } from '../../../job/index.js';
import {
  type BackupWish,
  hasEnded,
  type SteeredJob,
  type WatchedJob,
  type WatchedJobs,
} from './watched-job.js';

/** Jobs that have ended and are still shown. */
const MOST_ENDED = 50;

/** Jobs of a graph that nobody else keeps a list of. */
export class GraphJobs implements WatchedJobs {
  readonly #graph: Graph;
  readonly #folders: readonly string[];
  #jobs: WatchedJob[] = [];
  #count = 0;

  /** @param folders where new files may be made, and below. */
  constructor(graph: Graph, folders: readonly string[]) {
    this.#graph = graph;
    this.#folders = folders;
  }

  list(): readonly WatchedJob[] {
    return this.#jobs;
  }

  /** Lists a job that was begun elsewhere. */
  add(type: string, nodes: readonly string[], job: SteeredJob): WatchedJob {
    this.#count++;
    const watched = { id: `${type}-${this.#count}`, type, nodes, job };
    this.#jobs.push(watched);
    const ended = this.#jobs.filter(({ job }) => hasEnded(job));
    const tooMany = new Set(ended.slice(0, Math.max(0, ended.length - MOST_ENDED)));
    this.#jobs = this.#jobs.filter((one) => !tooMany.has(one));
    return watched;
  }

  async startBackup(wish: BackupWish): Promise<WatchedJob> {
    this.#graph.node(wish.node);
    const filename = await allowedPath(wish.target, this.#folders);
    const { begin } = await prepareBackup(this.#graph, wish, filename);
    return this.add('backup', [wish.node], begin().register());
  }

  dismiss(id: string): void {
    this.#jobs = this.#jobs.filter((one) => one.id !== id);
  }
}

/**
 * Makes the file of a backup, which replaces none.
 *
 * @returns begins the backup into it
 */
export async function prepareBackup(
  graph: Graph,
  { node, format, rate }: BackupWish,
  filename: string,
): Promise<{ begin: () => Job<BackupJobReport> }> {
  const file = { driver: 'file', filename } as const;
  const image: NodeDescription = format === 'raw' ? file : { driver: 'qcow2', file };
  await graph.create({ image, size: graph.node(node).size });
  const begin = () =>
    graph.backup({
      disks: [{ node, target: image }],
      // Nobody has written it since.
      targetIsZero: true,
      ...(rate !== undefined && { rate }),
    });
  return { begin };
}

/**
 * Where a new file really comes to lie.
 *
 * @throws RangeError where that is outside the folders.
 */
async function allowedPath(path: string, folders: readonly string[]): Promise<string> {
  if (!isAbsolute(path)) {
    throw new RangeError(`${path} is not a whole path: begin it with /`);
  }
  const folder = await realpath(dirname(path)).catch(() => undefined);
  if (folder === undefined) throw new RangeError(`there is no folder ${dirname(path)}`);
  for (const allowed of folders) {
    const top = await realpath(allowed).catch(() => undefined);
    if (top !== undefined && isBelow(folder, top)) return join(folder, basename(path));
  }
  const where = folders.length === 0 ? 'no folder is allowed' : folders.join(', ');
  throw new RangeError(`${path} lies outside the folders in which files may be made: ${where}`);
}

function isBelow(folder: string, top: string): boolean {
  const way = relative(top, folder);
  return way === '' || (way !== '..' && !way.startsWith('../') && !isAbsolute(way));
}
