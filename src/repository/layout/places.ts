/** Where everything lies in a repository. docs/repository.md shows it. */
import { join } from 'node:path';

/** What a folder is, if it is a repository. */
export const REPOSITORY_FILE = 'lacuna-repository.json';
/** The schema of manifests, for other readers. */
export const SCHEMA_FILE = 'point-1.schema.json';

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const MANIFEST = /^([1-9][0-9]{0,14})\.json$/;

/** Whether a machine or a disk may be called so. */
export function isName(name: unknown): name is string {
  // What is being made has this in its name.
  return typeof name === 'string' && NAME.test(name) && !name.includes('.partial-');
}

/**
 * Throws unless a machine or a disk may be called so.
 *
 * @throws TypeError
 */
export function checkName(what: string, name: unknown): asserts name is string {
  if (isName(name)) return;
  throw new TypeError(
    `${what} must have 1 to 64 of the characters A-Z a-z 0-9 . _ - and begin with a letter or digit, not ${JSON.stringify(name)}`,
  );
}

/** The folder that has a folder for each machine. */
export function machinesFolder(root: string): string {
  return join(root, 'machines');
}

/** The places of one machine. */
export class MachinePlaces {
  readonly machine: string;
  readonly folder: string;
  readonly points: string;
  readonly disks: string;
  readonly locks: string;
  readonly holds: string;
  readonly verified: string;
  /** Which points there must be. */
  readonly listed: string;

  constructor(root: string, machine: string) {
    this.machine = machine;
    this.folder = join(machinesFolder(root), machine);
    this.points = join(this.folder, 'points');
    this.disks = join(this.folder, 'disks');
    this.locks = join(this.folder, 'locks');
    this.holds = join(this.folder, 'holds');
    this.verified = join(this.folder, 'verified.json');
    this.listed = join(this.folder, 'points.json');
  }

  /** The manifest of a point. */
  manifest(number: number): string {
    return join(this.points, `${number}.json`);
  }

  /** The files of a disk. */
  disk(disk: string): string {
    return join(this.disks, disk);
  }

  /** A file of a disk. */
  file(disk: string, name: string): string {
    return join(this.disks, disk, name);
  }
}

/** The number of the point that a file would be the manifest of, by its name; undefined for any other file. */
export function numberOf(filename: string): number | undefined {
  const [, digits] = MANIFEST.exec(filename) ?? [];
  return digits === undefined ? undefined : Number(digits);
}
