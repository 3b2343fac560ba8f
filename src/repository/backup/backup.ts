/** The course of a backup: lock, decide, store, commit, renew the bitmaps. */
import { randomBytes } from 'node:crypto';
import { type BlockDevice, isBlockDevice, openDevice } from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import { Job, type JobControl } from '../../job/index.js';
import { packageVersion } from '../../util/index.js';
import {
  type DiskFiles,
  digestOfFiles,
  filesIfNamed,
  type MachinePoints,
  namedFiles,
  removeUnnamed,
  settleReplacements,
} from '../disks/index.js';
import { isThere, makeFolder, removeFiles } from '../layout/index.js';
import { Lock } from '../lock/index.js';
import {
  bitmapName,
  commitManifest,
  type DiskManifest,
  listedPoints,
  listPoints,
  type Manifest,
  numbersIn,
  readManifest,
} from '../manifest/index.js';
import type { Store } from '../store/index.js';
import { type RepositoryProgress, Tally, type Workshop } from '../work/index.js';
import { addHidden, type Decision, decide } from './decide.js';
import { BackupNotes, isNotResumable, type Noted, type NotedDisk } from './notes.js';
import {
  type BackupDisk,
  type BackupOptions,
  type BackupReport,
  checkBackupOptions,
  type DiskPlan,
  type DiskReport,
} from './options.js';
import { bitmapImageOf, fileStamp, renewBitmap } from './source-bitmaps.js';
import { type Drive, findChanged, type StoredImage, storeImage } from './store-disk.js';

/** A source that is open, and what is decided of it. */
interface Prepared {
  readonly disk: BackupDisk;
  readonly device: BlockDevice;
  readonly isOwn: boolean;
  readonly decision: Decision;
  /** Of an image whose bitmaps count, as it was when it was opened. */
  readonly stamp: string | undefined;
}

/** @throws what {@link Repository.backup} says. */
export function backup(
  store: Store,
  options: BackupOptions,
): Job<BackupReport, RepositoryProgress> {
  checkBackupOptions(options);
  const { rate, signal } = options;
  const tally = new Tally();
  const work = (control: JobControl) => backUp(store, options, { control, tally });
  return new Job({ what: 'a backup', rate, signal, work, counted: tally.counted });
}

async function backUp(
  store: Store,
  options: BackupOptions,
  workshop: Workshop,
): Promise<BackupReport> {
  const { machine } = options;
  workshop.tally.begin('prepare', { machine });
  const places = store.places(machine);
  for (const folder of [places.points, places.disks]) makeFolder(folder, store.operations);
  const lock = Lock.take(places, 'add', 'backup', store.operations);
  try {
    const found = await tidied(store, options);
    return await new Backup(store, found, options, workshop).run(found.removed);
  } finally {
    lock.release();
  }
}

/** What a backup finds when it begins. */
interface Found {
  /** All points of the machine, or as many as are needed. */
  readonly points: MachinePoints;
  /** The files of disks, each of which belongs to a point; undefined where that is not known. */
  readonly files: DiskFiles | undefined;
  /** Files that a run which died had left. */
  readonly removed: readonly string[];
}

/** Ends what a run that died has begun. Where there is nothing of that kind, only the newest chain is read. */
async function tidied(store: Store, { machine, id, notes }: BackupOptions): Promise<Found> {
  const { operations } = store;
  const files = filesIfNamed(store.places(machine));
  const chain = files && store.newestChain(machine);
  if (chain !== undefined) return { points: chain, files, removed: [] };
  let points = store.points(machine);
  if (await settleReplacements(points, operations)) points = store.points(machine);
  // What this very backup has stored before its process died is gone on with.
  const ownMark = notes === undefined ? undefined : markOf(id!);
  const removed = removeUnnamed(points, operations, ownMark);
  const isTidy = points.problems.length === 0;
  return { points, files: isTidy ? namedFiles(points.points) : undefined, removed };
}

/** What a backup would do. */
export async function planBackup(store: Store, options: BackupOptions): Promise<DiskPlan[]> {
  checkBackupOptions(options);
  const { machine } = options;
  const points = store.newestChain(machine) ?? store.points(machine);
  const prepared = await prepareAll(store, points, options);
  const plans = prepared.map(planOf);
  const [failure] = await closeAll(prepared);
  if (failure !== undefined) throw failure;
  return plans;
}

class Backup {
  readonly #store: Store;
  readonly #points: MachinePoints;
  readonly #files: DiskFiles | undefined;
  readonly #options: BackupOptions;
  readonly #drive: Drive;
  readonly #id: string;
  readonly #number: number;
  readonly #notes: BackupNotes | undefined;
  readonly #started = performance.now();
  readonly #time: string;
  readonly #warnings: string[] = [];

  constructor(store: Store, found: Found, options: BackupOptions, workshop: Workshop) {
    this.#store = store;
    this.#points = found.points;
    this.#files = found.files;
    this.#options = options;
    this.#drive = { ...workshop, threads: options.threads, compress: options.compress };
    this.#id = options.id ?? randomBytes(8).toString('hex');
    // Manifests that are damaged or missing have numbers too.
    this.#number = Math.max(0, ...this.#numbers()) + 1;
    this.#time = options.time ?? new Date().toISOString();
    const { notes } = options;
    if (notes === undefined) return;
    this.#notes = new BackupNotes(notes, this.#points.places, this.#id, store.operations);
  }

  /** Of all points that are there or must be. */
  #numbers(): number[] {
    const { places } = this.#points;
    return [...(listedPoints(places) ?? []), ...numbersIn(places)];
  }

  async run(removed: readonly string[]): Promise<BackupReport> {
    const prepared = await prepareAll(this.#store, this.#points, this.#options);
    let stored: StoredDisk[];
    let point: Manifest;
    try {
      this.#warnings.push(...prepared.flatMap(({ device }) => device.warnings));
      stored = [];
      for (const one of prepared) stored.push(await this.#storeDisk(one));
      this.#drive.control.throwIfEnding();
      this.#drive.tally.begin('commit');
      await this.#options.beforeCommit?.();
      point = this.#commit(stored);
    } catch (error) {
      // The failure of the backup matters more than one of the closing.
      await closeAll(prepared);
      this.#removeOwn();
      throw error;
    }
    this.#list(point);
    for (const why of await closeAll(prepared)) {
      this.#warn('A source or an older point could not be closed', why);
    }
    const bitmaps = await this.#renewBitmaps(prepared);
    const disks = stored.map(({ report }, i) => ({ ...report, bitmap: bitmaps[i] }));
    const durationMs = performance.now() - this.#started;
    return { point, disks, removed, durationMs, warnings: [...new Set(this.#warnings)] };
  }

  async #storeDisk(prepared: Prepared): Promise<StoredDisk> {
    const { disk, device, decision } = prepared;
    makeFolder(this.#points.places.disk(disk.name), this.#store.operations);
    const base = `${this.#number}${markOf(this.#id)}`;
    const own = {
      ...{ name: disk.name, size: device.size, parent: this.#parentId(decision) },
      ...{ filename: `${base}.qcow2`, leavesName: `${base}.leaves` },
    };
    const noted = this.#notes?.read(own);
    try {
      return await this.#storeFrom(prepared, own, noted);
    } catch (error) {
      if (noted === undefined || !isNotResumable(error)) throw error;
      // The source is still what it was: this disk alone begins again.
      return await this.#storeFrom(prepared, own, undefined);
    } finally {
      noted?.dirty?.free();
    }
  }

  #parentId({ parent }: Decision): string | null {
    return parent === undefined ? null : this.#points.idOf(parent.number);
  }

  /** @param noted what an earlier run has decided, and begun to store */
  async #storeFrom(
    prepared: Prepared,
    own: NotedDisk,
    noted: Noted | undefined,
  ): Promise<StoredDisk> {
    const { disk, device, decision } = prepared;
    const drive = this.#drive;
    const { parent } = decision;
    let dirty = noted === undefined ? decision.dirty : noted.dirty;
    let comparedBytes = 0;
    if (noted === undefined) {
      this.#notes?.drop(own);
      if (parent !== undefined && dirty === undefined) {
        ({ dirty, readBytes: comparedBytes } = await findChanged(device, parent, drive));
      }
    }
    try {
      if (noted === undefined && parent !== undefined && dirty !== undefined) {
        await addHidden(dirty, device, parent, drive.control.ending);
      }
      if (noted === undefined) this.#notes?.write(own, dirty);
      drive.tally.begin('copy', { disk: disk.name, point: this.#number });
      const { filename, leavesName } = own;
      const image = {
        ...{ places: this.#points.places, disk: disk.name, filename, leavesName },
        ...{ source: device, parent, dirty, resume: this.#notes?.copyOf(own) },
      };
      const stored = await storeImage(image, drive, this.#store.operations);
      return this.#describe(prepared, stored, comparedBytes);
    } finally {
      if (dirty !== decision.dirty && noted === undefined) dirty?.free();
    }
  }

  #describe(prepared: Prepared, stored: StoredImage, comparedBytes: number): StoredDisk {
    const plan = planOf(prepared);
    const { file, digest, resumedBytes, zeroedBytes, storedBytes, warnings } = stored;
    this.#warnings.push(...warnings);
    const { name, size, source, mode, reason } = plan;
    const bitmap = bitmapName(this.#store.id, this.#id, name);
    const movedBytes = stored.movedBytes + resumedBytes;
    const manifest = { name, size, digest, source, mode, reason, movedBytes, bitmap, file };
    const readBytes = comparedBytes + stored.movedBytes;
    const bytes = { readBytes, movedBytes, resumedBytes, zeroedBytes, storedBytes };
    return { manifest, report: { ...plan, ...bytes, bitmap: null } };
  }

  #commit(stored: readonly StoredDisk[]): Manifest {
    this.#checkUnchanged(stored);
    const { machine, tags = [], configuration = null } = this.#options;
    const manifest: Manifest = {
      format: 'lacuna-point',
      version: 1,
      repository: this.#store.id,
      machine,
      number: this.#number,
      id: this.#id,
      time: this.#time,
      durationMs: Math.round(performance.now() - this.#started),
      tags: [...new Set(tags)],
      writer: { lacuna: packageVersion(), node: process.version },
      configuration,
      disks: stored.map((disk) => disk.manifest),
    };
    commitManifest(this.#points.places, manifest, this.#store.operations);
    try {
      // A prune that did not see the lock may have come in between.
      this.#checkUnchanged(stored);
    } catch (error) {
      removeFiles([this.#points.places.manifest(this.#number)], this.#store.operations);
      throw error;
    }
    return manifest;
  }

  /** What the new point needs must still be there, even if the lock was lost. */
  #checkUnchanged(stored: readonly StoredDisk[]): void {
    const { places } = this.#points;
    const files = stored.map(({ manifest }) => manifest.file);
    for (const parent of new Set(files.map((file) => file.parent))) {
      if (parent === null) continue;
      const now = readManifest(places, parent, this.#store.id);
      if (now?.id !== this.#points.get(parent).id) {
        throw changed(`point ${parent}, which the new one lies over, was removed meanwhile`);
      }
    }
    for (const { manifest } of stored) {
      const { name, leaves } = manifest.file;
      const missing = [name, leaves.name].find(
        (file) => !isThere(places.file(manifest.name, file)),
      );
      if (missing !== undefined) throw changed(`${missing} was removed while the backup ran`);
    }
  }

  /** After a failure; the next run would do it as well. */
  #removeOwn(): void {
    try {
      removeUnnamed(this.#store.points(this.#options.machine), this.#store.operations);
    } catch {
      // The failure of the backup matters more.
    }
  }

  /** The point exists, so that a failure here only leaves it out of the list of those that there must be. */
  #list({ disks }: Manifest): void {
    const { places } = this.#points;
    const files = this.#files && new Map(this.#files);
    for (const { name, file } of disks) {
      files?.set(name, [...(files.get(name) ?? []), file.name, file.leaves.name]);
    }
    try {
      listPoints(places, this.#numbers(), files && digestOfFiles(files), this.#store.operations);
    } catch (error) {
      this.#warn(`The new point is not in ${places.listed}, so nobody would miss it`, error);
    }
  }

  #warn(what: string, error: unknown): void {
    this.#warnings.push(`${what}: ${error instanceof Error ? error.message : String(error)}`);
  }

  /** The point exists, so that a failure here only makes the next increment read more. */
  async #renewBitmaps(prepared: readonly Prepared[]): Promise<(string | null)[]> {
    const names: (string | null)[] = [];
    for (const { disk, device, stamp } of prepared) {
      const image = stamp === undefined ? undefined : bitmapImageOf(device);
      if (image === undefined) {
        names.push(null);
        continue;
      }
      try {
        const name = bitmapName(this.#store.id, this.#id, disk.name);
        await renewBitmap(image, { name, repository: this.#store.id, stamp });
        names.push(name);
      } catch (error) {
        names.push(null);
        const what = `Disk ${disk.name}: no bitmap counts from this point, so the next backup reads more`;
        this.#warn(what, error);
      }
    }
    return names;
  }
}

/** What the names of all files of a point have behind its number. */
function markOf(id: string): string {
  return `-${id.slice(0, 8)}`;
}

interface StoredDisk {
  readonly manifest: DiskManifest;
  readonly report: DiskReport;
}

function changed(what: string): LacunaError {
  return new LacunaError(
    'ERR_REPOSITORY_CHANGED',
    `The backup was not kept: ${what}. Run it again`,
  );
}

async function prepareAll(
  store: Store,
  points: MachinePoints,
  options: BackupOptions,
): Promise<Prepared[]> {
  const prepared: Prepared[] = [];
  try {
    for (const disk of options.disks) prepared.push(await prepare(store, points, disk, options));
    return prepared;
  } catch (error) {
    await closeAll(prepared);
    throw error;
  }
}

async function prepare(
  { id: repository }: Store,
  points: MachinePoints,
  disk: BackupDisk,
  options: BackupOptions,
): Promise<Prepared> {
  const { source, format } = disk;
  const { forceShare, bitmaps = true, signal } = options;
  const isOwn = !isBlockDevice(source);
  const device = isOwn ? await openDevice(source, { format, forceShare, signal }) : source;
  try {
    const image = isOwn && bitmaps && !forceShare ? bitmapImageOf(device) : undefined;
    const stamp = fileStamp(image);
    const decision = await decide({ points, repository, disk, device, options });
    return { disk, device, isOwn, decision, stamp };
  } catch (error) {
    if (isOwn) await device.close();
    throw error;
  }
}

/** Closes everything, whatever fails; returns why some of it could not be closed. */
async function closeAll(prepared: readonly Prepared[]): Promise<unknown[]> {
  const failures: unknown[] = [];
  for (const { device, isOwn, decision } of prepared) {
    decision.dirty?.free();
    for (const closing of [decision.parent, isOwn ? device : undefined]) {
      try {
        await closing?.close();
      } catch (error) {
        failures.push(error);
      }
    }
  }
  return failures;
}

function planOf({ disk, device, decision }: Prepared): DiskPlan {
  const { mode, reason, parent, dirty } = decision;
  return {
    name: disk.name,
    source: device.name.slice(0, 4096),
    size: device.size,
    mode,
    reason: reason.slice(0, 4096),
    parent: parent?.number ?? null,
    dirtyBytes: dirty?.dirtyBytes ?? null,
  };
}
