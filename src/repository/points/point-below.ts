/** Finds the point that an image of a repository belongs to, before another image is laid over it. */
import fs from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { LacunaError } from '../../errors/index.js';
import type { MachinePoints } from '../disks/index.js';
import { MachinePlaces, REPOSITORY_FILE } from '../layout/index.js';
import { hold } from '../lock/index.js';
import { bitmapPrefix, type Manifest } from '../manifest/index.js';
import { Store } from '../store/index.js';

/** A point below an image that is not the repository's. */
export class PointBelow {
  /** The machine whose point it is. */
  readonly machine: string;
  /** The number of the point. */
  readonly number: number;
  /** The disk whose image it is. */
  readonly disk: string;
  readonly #store: Store;
  readonly #points: MachinePoints;

  /** @internal */
  constructor(store: Store, points: MachinePoints, { number }: Manifest, disk: string) {
    this.machine = points.machine;
    this.number = number;
    this.disk = disk;
    this.#store = store;
    this.#points = points;
  }

  /** The point of the repository from which a bitmap of this name counts; undefined where the repository has none such. */
  countedFrom(bitmap: string): Pick<PointBelow, 'machine' | 'number' | 'disk'> | undefined {
    const prefix = bitmapPrefix(this.#store.id);
    // The points of all machines need not be read for a bitmap of another name.
    if (!bitmap.startsWith(prefix)) return undefined;
    // Its own machine first: nobody else's points have to be read then.
    const others = this.#store.machines().filter((machine) => machine !== this.machine);
    for (const machine of [this.machine, ...others]) {
      const points = machine === this.machine ? this.#points : this.#store.points(machine);
      const found = points.points.find(({ id }) => bitmap.startsWith(`${prefix}${id}@`));
      if (found === undefined) continue;
      const disk = bitmap.slice(`${prefix}${found.id}@`.length);
      return { machine, number: found.number, disk };
    }
    return undefined;
  }

  /**
   * Keeps `prune` from the point while a file is there that lies over it.
   *
   * @throws LacunaError ERR_REPOSITORY_FILE
   */
  hold(overlay: string): void {
    hold(this.#points.places, { number: this.number, overlay }, this.#store.operations);
  }
}

/**
 * The point whose image a file is; undefined for a file that is none of a repository's.
 *
 * @throws LacunaError ERR_REPOSITORY_DAMAGED, ERR_REPOSITORY_FILE; ERR_POINT_UNKNOWN for an image of a point that is gone.
 */
export function pointBelow(image: string): PointBelow | undefined {
  // ROOT/machines/MACHINE/disks/DISK/FILE
  const path = fs.existsSync(image) ? fs.realpathSync(image) : image;
  const machineFolder = dirname(dirname(dirname(path)));
  const root = dirname(dirname(machineFolder));
  const [machine, disk, file] = [machineFolder, dirname(path), path].map((name) => basename(name));
  const places = new MachinePlaces(root, machine);
  if (places.file(disk, file) !== path || !fs.existsSync(join(root, REPOSITORY_FILE))) return;
  const store = Store.open(root);
  const points = store.points(machine);
  const manifest = points.points.find(({ disks }) =>
    disks.some((one) => one.name === disk && one.file.name === file),
  );
  if (manifest === undefined) refuseGone(points, disk, file);
  return manifest && new PointBelow(store, points, manifest, disk);
}

/** Nothing keeps `prune` from an image whose point is gone: it merges it into the one above when it sees fit. */
function refuseGone({ points, machine, places }: MachinePoints, disk: string, name: string): void {
  const owner = points.find(({ disks }) =>
    disks.some(
      (one) => one.name === disk && one.file.below?.some((image) => image.name === name) === true,
    ),
  );
  if (owner === undefined) return;
  const device = places.file(disk, name);
  const message = `${device} is of a point of ${machine} that is gone, and prune may remove it at any time: take an image of a point that is there, such as ${owner.number}`;
  throw new LacunaError('ERR_POINT_UNKNOWN', message, { device });
}
