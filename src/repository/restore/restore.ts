/** Makes disks what they were at a point. */
import { dirname } from 'node:path';

import { filesOf, type ImageFormat, isBlockDevice, parseDescription } from '../../block/index.js';
import { type CopyReport, copy, type DeviceSource } from '../../copy/index.js';
import { LacunaError } from '../../errors/index.js';
import { followed, isSamePlace } from '../../files/index.js';
import { Job, type JobControl, type JobOptions } from '../../job/index.js';
import { optionCheck } from '../../util/index.js';
import { checkedDevice, type OpenDisk, withDisk } from '../disks/index.js';
import { attempt } from '../layout/index.js';
import { Lock } from '../lock/index.js';
import type { Manifest } from '../manifest/index.js';
import { type PointName, selectPoint } from '../points/index.js';
import type { Store } from '../store/index.js';
import { type RepositoryProgress, runCopy, Tally, type Workshop } from '../work/index.js';

/** Where a disk is restored to. */
export interface RestoreTarget {
  /** Of the disk in the repository. */
  readonly name: string;
  /** A file that is made, or replaced when the new one is whole; a block device or an NBD export, which is written in place. */
  readonly target: DeviceSource;
  /** The format inside a path. Default: from the path's ending. */
  readonly format?: ImageFormat | undefined;
}

/** What is restored, and where to. */
export interface RestoreOptions extends JobOptions {
  /** The machine; it need not be said where there is one alone, or the point says it. */
  readonly machine?: string | undefined;
  /** A number, `latest`, or a time: the newest point that is not younger. `web/7` names the machine too. */
  readonly point: PointName;
  /** The disks to restore. */
  readonly disks: readonly RestoreTarget[];
  /** Worker threads. Default: as `copy` chooses them. */
  readonly threads?: number;
}

/** Result of a restore. */
export interface RestoreReport {
  /** The point that was restored. */
  readonly point: Manifest;
  /** The disks, in the order asked for. */
  readonly disks: readonly ({ readonly name: string } & CopyReport)[];
  /** Milliseconds from the call to the report. */
  readonly durationMs: number;
  /** What a person should know although it succeeded. */
  readonly warnings: readonly string[];
}

const checkOptions = optionCheck<RestoreOptions>({
  machine: 'any',
  point: { needed: 'a number, "latest", or a time' },
  disks: { needed: 'a list; each is { name, target }' },
  threads: 'any',
  rate: 'any',
  signal: 'signal',
});

const checkTarget = optionCheck<RestoreTarget>({
  name: { needed: 'the name of the disk in the repository' },
  target: { needed: 'a path, an NBD URI, a description, or an open Device' },
  format: 'any',
});

/** @throws what {@link Repository.restore} says. */
export function restore(
  store: Store,
  options: RestoreOptions,
): Job<RestoreReport, RepositoryProgress> {
  checkOptions('restore', options);
  const { disks, rate, signal } = options;
  if (!Array.isArray(disks) || disks.length === 0) {
    throw new TypeError('restore: disks must be a list with one disk at least');
  }
  for (const [i, disk] of disks.entries()) checkTarget(`restore: disks[${i}]`, disk);
  const tally = new Tally();
  const work = (control: JobControl) => restoreDisks(store, options, { control, tally });
  return new Job({ what: 'a restore', rate, signal, work, counted: tally.counted });
}

async function restoreDisks(
  store: Store,
  options: RestoreOptions,
  { control, tally }: Workshop,
): Promise<RestoreReport> {
  const { disks, machine, threads } = options;
  const started = performance.now();
  const chosen = selectPoint(store, options.point, machine).points.machine;
  const lock = Lock.take(store.places(chosen), 'read', 'restore', store.operations);
  try {
    // Again, because it may have changed before the lock was taken.
    const { points, manifest } = selectPoint(store, options.point, machine);
    const { number } = manifest;
    for (const { name } of disks) points.diskOf(number, name);
    for (const target of disks) refuseInside(store, target);
    const reports: ({ name: string } & CopyReport)[] = [];
    for (const target of disks) {
      tally.begin('copy', { machine: chosen, point: number, disk: target.name });
      const work = (disk: OpenDisk) => restoreDisk(disk, target, { control, tally, threads });
      const report = await withDisk(points, number, target.name, work, control.ending);
      reports.push({ name: target.name, ...report });
    }
    const warnings = reports.flatMap((report) => report.warnings);
    return { point: manifest, disks: reports, durationMs: performance.now() - started, warnings };
  } finally {
    lock.release();
  }
}

/** A restore into a file of the repository would destroy the points that the file belongs to. */
function refuseInside({ path }: Store, { target, format }: RestoreTarget): void {
  const description = typeof target === 'string' ? parseDescription(target, { format }) : target;
  for (const filename of filesOf(
    isBlockDevice(description) ? description.description : description,
  )) {
    const file = attempt('open', filename, () => followed(filename));
    let folder = dirname(file);
    // A folder may be mounted in two places.
    while (folder !== dirname(folder) && !isSamePlace(folder, path)) folder = dirname(folder);
    if (!isSamePlace(folder, path)) continue;
    const message = `${filename} lies in the repository itself (${path}), where a restore changes nothing: name a target outside of it`;
    throw new LacunaError('ERR_COPY_MISMATCH', message, { device: filename });
  }
}

async function restoreDisk(
  disk: OpenDisk,
  { target, format }: RestoreTarget,
  workshop: Workshop,
): Promise<CopyReport> {
  // An image has a multiple of 512 bytes, and the disk need not.
  const { control, threads } = workshop;
  const isWhole = disk.size === disk.device.size;
  if (isWhole) await disk.checkZeroes(undefined, control.ending);
  const job = copy({
    source: isWhole ? disk.device : checkedDevice(disk),
    target,
    ...(format && { targetFormat: format }),
    ...(threads !== undefined && { threads }),
    signal: control.signal,
    allowEmpty: true,
    // Whatever threads read it, it is compared before the target is finished.
    onBlock: disk.check,
  });
  return await runCopy(workshop, job);
}
