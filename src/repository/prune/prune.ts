/** Removes points, and gives those that stay what they need of them. docs/repository.md has the steps. */
import fs from 'node:fs';
import { LacunaError } from '../../errors/index.js';
import { Job, type JobControl, type JobOptions } from '../../job/index.js';
import { counted, optionCheck } from '../../util/index.js';
import {
  type DiskFiles,
  digestOfFiles,
  disksIn,
  type MachinePoints,
  NEW,
  namedFiles,
  type OpenDisk,
  removeUnnamed,
  settleReplacements,
  withDisk,
} from '../disks/index.js';
import { namesIn, removeFiles } from '../layout/index.js';
import { endHold, holdsOf, Lock } from '../lock/index.js';
import {
  type ImageFile,
  type ImageState,
  listPoints,
  type Manifest,
  replaceManifest,
} from '../manifest/index.js';
import type { Store } from '../store/index.js';
import { type RepositoryProgress, Tally, type Workshop } from '../work/index.js';
import { checkKeepRules, chooseKept, type KeepRules } from './keep.js';
import { estimate, storeMerged } from './merge.js';
import { type PlannedDisk, placed, planMerges } from './plan-merges.js';

/** What is removed, and what stays. */
export interface PruneOptions extends JobOptions {
  /** Only this machine. Default: each, by itself. */
  readonly machine?: string | undefined;
  /** What stays. */
  readonly keep: KeepRules;
  /** Change nothing, and tell what would be done. Default false. */
  readonly dryRun?: boolean;
  /** Worker threads. Default: as `copy` chooses them. */
  readonly threads?: number;
}

/** A disk of a point that stays, and lies over another point from now on. */
export interface MergedDisk {
  /** The number of the point. */
  readonly point: number;
  /** The name of the disk. */
  readonly disk: string;
  /** Null where nothing lies below any more. */
  readonly over: number | null;
}

/** Result of a prune for one machine. */
export interface PrunedMachine {
  /** Its name. */
  readonly machine: string;
  /** Points that stay, with the rules that keep each. */
  readonly kept: readonly { readonly number: number; readonly rules: readonly string[] }[];
  /** Points that are gone, by number; with `dryRun` those that would be. */
  readonly removed: readonly number[];
  /** Disks whose images were merged. */
  readonly merged: readonly MergedDisk[];
  /** Bytes on disk that are free now; with `dryRun` about as many as would be, below 0 where merging takes more. */
  readonly freedBytes: number;
}

/** Result of a prune. */
export interface PruneReport {
  /** The result for each machine. */
  readonly machines: readonly PrunedMachine[];
  /** Whether nothing was changed. */
  readonly dryRun: boolean;
  /** Milliseconds from the call to the report. */
  readonly durationMs: number;
}

const check = optionCheck<PruneOptions>({
  machine: 'any',
  keep: { needed: 'rules such as { last: 7 }' },
  dryRun: 'flag',
  threads: 'any',
  rate: 'any',
  signal: 'signal',
});

/** @throws what {@link Repository.prune} says. */
export function prune(store: Store, options: PruneOptions): Job<PruneReport, RepositoryProgress> {
  check('prune', options);
  checkKeepRules(options.keep);
  const { rate, signal } = options;
  const tally = new Tally();
  const work = (control: JobControl) => pruneAll(store, options, { control, tally });
  return new Job({ what: 'a prune', rate, signal, work, counted: tally.counted });
}

async function pruneAll(
  store: Store,
  options: PruneOptions,
  workshop: Workshop,
): Promise<PruneReport> {
  const { machine, dryRun = false, threads } = options;
  if (machine !== undefined) store.checkMachine(machine);
  const started = performance.now();
  const machines: PrunedMachine[] = [];
  const names = machine === undefined ? store.machines() : [machine];
  // All of them before anything of the first is removed.
  for (const name of names) refuseAllGone(store.points(name), options.keep);
  for (const name of names) {
    machines.push(await pruneMachine(store, name, options, { ...workshop, threads }));
  }
  return { machines, dryRun, durationMs: performance.now() - started };
}

/** Rules that keep none of the points there are, such as a tag that is spelled wrong, would remove every backup. */
function refuseAllGone({ machine, points, problems }: MachinePoints, rules: KeepRules): void {
  if (points.length === 0 || problems.length > 0 || chooseKept(points, rules).size > 0) return;
  throw new TypeError(
    `prune: the rules keep no point of ${machine}, which has ${counted(points.length, 'point')}, so nothing was pruned: keep the last one at least`,
  );
}

async function pruneMachine(
  store: Store,
  machine: string,
  options: PruneOptions,
  workshop: Workshop,
): Promise<PrunedMachine> {
  const { dryRun = false } = options;
  const places = store.places(machine);
  const lock = Lock.take(places, dryRun ? 'read' : 'change', 'prune', store.operations);
  try {
    let points = store.points(machine);
    if (points.problems.length > 0) {
      const { message, device } = points.problems[0];
      const text = `Nothing of ${machine} is pruned while a manifest is damaged, since it says what other points need: ${message}`;
      throw new LacunaError('ERR_REPOSITORY_DAMAGED', text, { device });
    }
    if (!dryRun && (await settleReplacements(points, store.operations))) {
      points = store.points(machine);
    }
    if (!dryRun) dropHolds(points);
    return await new MachinePrune(store, points, options, workshop).run();
  } finally {
    lock.release();
  }
}

/** Ends holds whose overlays are gone. */
function dropHolds({ places }: MachinePoints): void {
  for (const found of holdsOf(places)) if (!found.isThere) endHold(found);
}

class MachinePrune {
  readonly #store: Store;
  readonly #points: MachinePoints;
  readonly #options: PruneOptions;
  readonly #workshop: Workshop;
  readonly #kept: Map<number, string[]>;

  constructor(store: Store, points: MachinePoints, options: PruneOptions, workshop: Workshop) {
    this.#store = store;
    this.#workshop = workshop;
    this.#points = points;
    this.#options = options;
    this.#kept = chooseKept(points.points, options.keep);
  }

  async run(): Promise<PrunedMachine> {
    const { machine, points: all } = this.#points;
    const staying = all.filter(({ number }) => this.#kept.has(number));
    const going = all.filter(({ number }) => !this.#kept.has(number));
    this.#checkHolds(going);
    const { smallImage } = this.#store;
    const planned: PlannedDisk[] = [];
    for (const point of staying) {
      planned.push(...(await planMerges(this.#points, point, this.#kept, smallImage)));
    }
    const freedBytes = this.#options.dryRun
      ? await this.#estimate(planned, going)
      : await this.#carryOut(planned, going);
    const kept = staying.map(({ number }) => ({ number, rules: this.#kept.get(number)! }));
    const merged = planned
      .filter(({ taken }) => taken > 0)
      .map(({ point, disk, over }) => ({ point, disk, over }));
    return { machine, kept, removed: going.map(({ number }) => number), merged, freedBytes };
  }

  /** A point that an overlay lies over does not go while that is there. */
  #checkHolds(going: readonly Manifest[]): void {
    const { machine, places } = this.#points;
    for (const { number, overlay, path, isThere } of holdsOf(places)) {
      const isHeld =
        number === 0 ? going.length > 0 : going.some((point) => point.number === number);
      if (!isThere || !isHeld) continue;
      const what =
        number === 0
          ? `${path} cannot be read, and may hold any point`
          : `${overlay} lies over point ${number}`;
      const message = `Nothing of ${machine} was pruned: ${what}. Remove the overlay, or keep the point; if it is gone with its host, remove ${path}`;
      throw new LacunaError('ERR_REPOSITORY_LOCKED', message, { device: path });
    }
  }

  async #carryOut(planned: readonly PlannedDisk[], going: readonly Manifest[]): Promise<number> {
    const { operations } = this.#store;
    const before = spaceOf(this.#points);
    try {
      for (const [point, disks] of byPoint(planned)) {
        // One whole point after another: what is done stays done.
        await this.#replace(point, disks);
      }
      this.#workshop.control.throwIfEnding();
    } catch (error) {
      this.#removeOwn();
      throw error;
    }
    const staying = this.#points.points.filter((point) => !going.includes(point));
    listPoints(
      this.#points.places,
      staying.map(({ number }) => number),
      digestOfFiles(this.#filesOf(staying)),
      operations,
    );
    // Newest first, so that no point is there whose parent is gone.
    const manifests = going.map(({ number }) => this.#points.places.manifest(number)).reverse();
    for (const path of manifests) removeFiles([path], operations);
    const left = this.#store.points(this.#points.machine);
    removeUnnamed(left, operations);
    return before - spaceOf(left);
  }

  /** What there will be when the others are gone; their manifests may have been replaced. */
  #filesOf(staying: readonly Manifest[]): DiskFiles {
    const { points } = this.#store.points(this.#points.machine);
    const numbers = new Set(staying.map(({ number }) => number));
    return namedFiles(points.filter(({ number }) => numbers.has(number)));
  }

  /** After a failure, so that a full disk is not kept full; the next run would do it as well. */
  #removeOwn(): void {
    try {
      removeUnnamed(this.#store.points(this.#points.machine), this.#store.operations);
    } catch {
      // The failure of the prune matters more.
    }
  }

  async #replace(number: number, planned: readonly PlannedDisk[]): Promise<void> {
    const { operations } = this.#store;
    const { places } = this.#points;
    // As it is by now: its manifest may have been replaced for another reason.
    const manifest = this.#store.points(this.#points.machine).get(number);
    const merged = new Map<string, ImageState>();
    for (const one of planned) {
      this.#workshop.control.throwIfEnding();
      if (one.taken > 0) merged.set(one.disk, await this.#merge(one));
    }
    const disks = manifest.disks.map((disk) => {
      const replacement = merged.get(disk.name);
      if (replacement !== undefined) return { ...disk, replacement };
      const own = planned.find((one) => one.disk === disk.name);
      return own === undefined ? disk : { ...disk, file: placed(disk.file, own) };
    });
    replaceManifest(places, { ...manifest, disks }, operations);
    if (merged.size === 0) return;
    for (const [disk, { name }] of merged) {
      const path = places.file(disk, name);
      operations.rename(path + NEW, path);
      operations.syncFolder(path);
    }
    const done = disks.map(({ replacement: _, ...disk }) => ({
      ...disk,
      file: merged.get(disk.name) ?? disk.file,
    }));
    replaceManifest(places, { ...manifest, disks: done }, operations);
  }

  async #merge(planned: PlannedDisk): Promise<ImageState> {
    const { point, disk } = planned;
    this.#workshop.tally.begin('merge', { machine: this.#points.machine, point, disk });
    return await this.#withDisk(planned, (open) =>
      storeMerged(open, planned, this.#workshop, this.#store.operations),
    );
  }

  #withDisk<T>({ point, disk }: PlannedDisk, work: (disk: OpenDisk) => T | Promise<T>): Promise<T> {
    const { ending } = this.#workshop.control;
    // As they are by now: images below may have been replaced.
    const points = this.#store.points(this.#points.machine);
    return withDisk(points, point, disk, async (open) => await work(open), ending);
  }

  async #estimate(planned: readonly PlannedDisk[], going: readonly Manifest[]): Promise<number> {
    const { places, points } = this.#points;
    const filesOf = (disk: string, images: readonly ImageFile[]) =>
      images.flatMap(({ name, leaves }) => [name, leaves.name].map((f) => places.file(disk, f)));
    const before = points.flatMap(({ disks }) =>
      disks.flatMap(({ name, file }) => filesOf(name, [file, ...(file.below ?? [])])),
    );
    const freed = new Set(before);
    for (const { number, disks } of points.filter((point) => !going.includes(point))) {
      for (const { name, file } of disks) {
        const plan = planned.find(({ point, disk }) => point === number && disk === name);
        const left = plan === undefined ? (file.below ?? []) : plan.left;
        const own = plan === undefined || plan.taken === 0 ? [file] : [];
        for (const path of filesOf(name, [...own, ...left])) freed.delete(path);
      }
    }
    let bytes = 0;
    for (const one of planned.filter(({ taken }) => taken > 0)) {
      bytes -= await this.#withDisk(one, (disk) => estimate(disk, one));
    }
    return [...freed].reduce((sum, path) => sum + spaceOfFile(path), bytes);
  }
}

function byPoint(planned: readonly PlannedDisk[]): Map<number, PlannedDisk[]> {
  const points = new Map<number, PlannedDisk[]>();
  for (const one of planned) points.set(one.point, [...(points.get(one.point) ?? []), one]);
  return points;
}

/** Bytes on disk of all files of a machine's disks. */
function spaceOf({ places }: MachinePoints): number {
  return disksIn(places)
    .flatMap((disk) => namesIn(places.disk(disk)).map((name) => places.file(disk, name)))
    .reduce((sum, path) => sum + spaceOfFile(path), 0);
}

function spaceOfFile(path: string): number {
  return (fs.lstatSync(path, { throwIfNoEntry: false })?.blocks ?? 0) * 512;
}
