/** Generations of running machines that are backed up into a repository. */
import type { Manifest, Repository } from '../repository/index.js';

/** The newest point of a machine; undefined where it has none. */
export function newestOf(repository: Repository, machine: string): Manifest | undefined {
  return repository.newest(machine);
}

/** The generation of a point, as the names of bitmaps have it, in images at rest as well. */
export function generationOf(repository: string, id: string): string {
  return `${repository.slice(0, 8)}-${id}`;
}

/** What the next increment of a machine begins from; undefined where it has no points. */
export function baseOf(repository: Repository, machine: string): string | undefined {
  const newest = newestOf(repository, machine);
  return newest === undefined ? undefined : generationOf(repository.id, newest.id);
}
