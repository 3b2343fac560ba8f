/** The restore points of one machine, as their manifests say. */
import { LacunaError } from '../../errors/index.js';
import type { MachinePlaces } from '../layout/index.js';
import { type DiskManifest, faultOf, type Manifest, type Manifests } from '../manifest/index.js';

export class MachinePoints {
  readonly places: MachinePlaces;
  /** Oldest first. */
  readonly points: readonly Manifest[];
  /** What is wrong with files that should be manifests. */
  readonly problems: readonly LacunaError[];
  readonly #byNumber: ReadonlyMap<number, Manifest>;
  readonly #checked = new Set<number>();

  constructor(places: MachinePlaces, { points, problems }: Manifests) {
    this.places = places;
    this.points = points;
    this.problems = problems;
    this.#byNumber = new Map(points.map((point) => [point.number, point]));
  }

  get machine(): string {
    return this.places.machine;
  }

  get newest(): Manifest | undefined {
    return this.points.at(-1);
  }

  /**
   * A point by its number, and sure to be as the schema says.
   *
   * @throws LacunaError ERR_POINT_UNKNOWN, ERR_REPOSITORY_DAMAGED
   */
  get(number: number): Manifest {
    const point = this.#byNumber.get(number);
    if (point === undefined) throw this.#unknown(number);
    if (!this.#checked.has(number)) {
      const fault = faultOf(point);
      if (fault !== undefined) throw this.damaged(number, `its manifest is not valid: ${fault}`);
      this.#checked.add(number);
    }
    return point;
  }

  has(number: number): boolean {
    return this.#byNumber.has(number);
  }

  /** @throws LacunaError ERR_POINT_UNKNOWN, ERR_REPOSITORY_DAMAGED */
  diskOf(number: number, name: string): DiskManifest {
    return this.#diskIn(this.get(number), name);
  }

  /**
   * A disk of a point that is there, as far as it is needed of what lies below another one: the schema is not asked, which takes
   * longer than all else of a long chain, and what an image needs was looked at when the manifest was read.
   *
   * @throws LacunaError ERR_POINT_UNKNOWN, ERR_REPOSITORY_DAMAGED
   */
  diskBelow(number: number, name: string): DiskManifest {
    return this.#diskIn(this.#listed(number), name);
  }

  /** The generation of a point that is there, which any list has. */
  idOf(number: number): string {
    return this.#listed(number).id;
  }

  #listed(number: number): Manifest {
    return this.#byNumber.get(number) ?? this.get(number);
  }

  #diskIn({ number, disks }: Manifest, name: string): DiskManifest {
    const disk = disks.find((disk) => disk.name === name);
    if (disk !== undefined) return disk;
    const names = disks.map((disk) => disk.name).join(', ') || 'none';
    const message = `Point ${number} of ${this.machine} has no disk ${name}; its disks are: ${names}`;
    throw new LacunaError('ERR_POINT_UNKNOWN', message);
  }

  damaged(number: number, what: string, device?: string): LacunaError {
    const message = `Point ${number} of ${this.machine}: ${what}`;
    return new LacunaError('ERR_REPOSITORY_DAMAGED', message, { device });
  }

  /** A point whose manifest is there and cannot be read is not unknown. */
  #unknown(number: number): LacunaError {
    const path = this.places.manifest(number);
    const problem = this.problems.find(({ device }) => device === path);
    if (problem !== undefined) return problem;
    const message = `${this.machine} has no restore point ${number}: "lacuna list" shows those that it has`;
    return new LacunaError('ERR_POINT_UNKNOWN', message);
  }
}
