import { realpath } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, relative } from 'node:path';
import type { Graph, NodeDescription } from '../../../graph/index.js';
import type { BackupWish, SteeredJob, WatchedJob, WatchedJobs } from './watched-job.js';

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
    const ended = this.#jobs.filter((one) => !isActive(one));
    const tooMany = new Set(ended.slice(0, Math.max(0, ended.length - MOST_ENDED)));
    this.#jobs = this.#jobs.filter((one) => !tooMany.has(one));
    return watched;
  }

  async startBackup({ node: name, target, format, rate }: BackupWish): Promise<WatchedJob> {
    const graph = this.#graph;
    const node = graph.node(name);
    const filename = await allowedPath(target, this.#folders);
    const file = { driver: 'file', filename } as const;
    const image: NodeDescription = format === 'raw' ? file : { driver: 'qcow2', file };
    await graph.create({ image, size: node.size });
    // Made this moment, by nobody else: it replaces no file.
    const job = graph.backup({
      disks: [{ node: name, target: image }],
      targetIsZero: true,
      ...(rate !== undefined && { rate }),
    });
    return this.add('backup', [name], job.register());
  }
}

function isActive({ job }: WatchedJob): boolean {
  return job.state === 'running' || job.state === 'paused';
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
