/** Looks whether everything in a repository is still what it was when it was written. */
import { join } from 'node:path';
import { Job, type JobControl } from '../../job/index.js';
import { type MachinePoints, unnamedFiles } from '../disks/index.js';
import { readIfThere, replaceFile, SCHEMA_FILE, seal, sha256, unseal } from '../layout/index.js';
import { Lock } from '../lock/index.js';
import { faultOf, listedPoints, type Manifest } from '../manifest/index.js';
import type { Store } from '../store/index.js';
import { type RepositoryProgress, Tally, type Workshop } from '../work/index.js';
import {
  checkVerifyOptions,
  type Problem,
  type VerifiedPoint,
  type VerifyOptions,
  type VerifyReport,
} from './options.js';
import { Sample } from './sample.js';
import { verifyDisk } from './verify-disk.js';

/** When each point was verified last, by its generation; in ISO 8601. */
export type VerifiedTimes = Readonly<Record<string, string>>;

/** @throws what {@link Repository.verify} says. */
export function verify(
  store: Store,
  options: VerifyOptions = {},
): Job<VerifyReport, RepositoryProgress> {
  checkVerifyOptions(options);
  const { rate, signal } = options;
  const tally = new Tally();
  const work = (control: JobControl) => verifyAll(store, options, { control, tally });
  return new Job({ what: 'a verification', rate, signal, work, counted: tally.counted });
}

async function verifyAll(
  store: Store,
  options: VerifyOptions,
  workshop: Workshop,
): Promise<VerifyReport> {
  const { machine, threads } = options;
  if (machine !== undefined) store.checkMachine(machine);
  const run = new Verification(store, options, { ...workshop, threads });
  run.checkSchema();
  for (const name of machine === undefined ? store.machines() : [machine]) {
    await run.checkMachine(name);
  }
  return run.report();
}

class Verification {
  readonly #store: Store;
  readonly #options: VerifyOptions;
  readonly #workshop: Workshop;
  readonly #sample: Sample;
  readonly #started = performance.now();
  readonly #problems: Problem[] = [];
  readonly #points: VerifiedPoint[] = [];
  readonly #unnamed: string[] = [];
  readonly #warnings: string[] = [];
  #readBytes = 0;

  constructor(store: Store, options: VerifyOptions, workshop: Workshop) {
    this.#store = store;
    this.#options = options;
    this.#sample = new Sample(options.dataSubset ?? 1);
    this.#workshop = workshop;
  }

  checkSchema(): void {
    const file = join(this.#store.path, SCHEMA_FILE);
    const bytes = readIfThere(file);
    if (bytes !== undefined && sha256(bytes) === this.#store.schemaSha256) return;
    const what = bytes === undefined ? 'is not there' : 'was changed since it was written';
    this.#problems.push({ file, message: `${file} ${what}; points can be restored without it` });
  }

  async checkMachine(machine: string): Promise<void> {
    const places = this.#store.places(machine);
    const lock = Lock.take(places, 'read', 'verify', this.#store.operations);
    try {
      const points = this.#store.points(machine);
      this.#unnamed.push(...unnamedFiles(points));
      for (const { message, device: file } of points.problems) {
        this.#problems.push({ machine, message, ...(file !== undefined && { file }) });
      }
      this.#checkList(points);
      const verified = this.#verifiedIn(points);
      const chosen = this.#chosen(points);
      for (const point of chosen) await this.#checkPoint(points, point);
      this.#judge(points, chosen, verified);
    } finally {
      lock.release();
    }
  }

  #chosen(points: MachinePoints): readonly Manifest[] {
    const { points: numbers } = this.#options;
    return numbers === undefined ? points.points : numbers.map((number) => points.get(number));
  }

  async #checkPoint(points: MachinePoints, manifest: Manifest): Promise<void> {
    const { machine } = points;
    const { number } = manifest;
    const workshop = this.#workshop;
    const fault = faultOf(manifest);
    if (fault !== undefined) {
      const file = points.places.manifest(number);
      const message = `Point ${number} of ${machine}: its manifest is not valid: ${fault} (${file})`;
      this.#problems.push({ machine, point: number, file, message });
      return;
    }
    for (const { name } of manifest.disks) {
      workshop.control.throwIfEnding();
      await verifyDisk({
        ...{ points, number, name, workshop, sample: this.#sample },
        found: (problem) => this.#problems.push(problem),
        read: (bytes) => {
          this.#readBytes += bytes;
        },
      });
    }
  }

  /** Says of each point whether it is sound with all that lies below it. */
  #judge(points: MachinePoints, chosen: readonly Manifest[], verified: VerifiedTimes): void {
    const { machine } = points;
    const own = this.#problems.filter((problem) => problem.machine === machine);
    const bad = new Set(own.flatMap(({ point }) => (point === undefined ? [] : [point])));
    const times: Record<string, string> = {};
    for (const { id } of points.points) if (verified[id] !== undefined) times[id] = verified[id];
    for (const { number, id } of chosen) {
      const damagedBy = [...chainOf(points, number)].filter(
        (one) => bad.has(one) || !points.has(one),
      );
      this.#points.push({ machine, number, ok: damagedBy.length === 0, damagedBy });
      const { dataSubset = 1 } = this.#options;
      if (damagedBy.length > 0) delete times[id];
      else if (dataSubset === 1) times[id] = new Date().toISOString();
    }
    try {
      replaceFile(points.places.verified, seal({ machine, points: times }), this.#store.operations);
    } catch (error) {
      // A repository that cannot be written is verified all the same.
      this.#warnings.push(`When it was verified could not be noted: ${(error as Error).message}`);
    }
  }

  #checkList({ places, machine }: MachinePoints): void {
    if (listedPoints(places) !== undefined) return;
    const file = places.listed;
    const message = `${file} was changed since it was written; it only says which points there must be, and the next backup makes it anew`;
    this.#problems.push({ machine, file, message });
  }

  #verifiedIn({ places, machine }: MachinePoints): VerifiedTimes {
    const file = places.verified;
    const bytes = readIfThere(file);
    if (bytes === undefined) return {};
    const found = unseal(bytes);
    if (found !== undefined) return found.points as VerifiedTimes;
    const message = `${file} was changed since it was written; it only says when points were verified, and is made anew`;
    this.#problems.push({ machine, file, message });
    return {};
  }

  report(): VerifyReport {
    return {
      ok: this.#problems.length === 0,
      points: this.#points,
      problems: this.#problems,
      readBytes: this.#readBytes,
      unnamed: this.#unnamed,
      durationMs: performance.now() - this.#started,
      warnings: this.#warnings,
    };
  }
}

/** When points were verified, as far as that is known. */
export function verifiedTimes(store: Store, machine: string): VerifiedTimes {
  const bytes = readIfThere(store.places(machine).verified);
  return ((bytes && unseal(bytes))?.points ?? {}) as VerifiedTimes;
}

/** The points in the chains of the disks of a point, itself included. */
function chainOf(points: MachinePoints, number: number): Set<number> {
  const chain = new Set([number]);
  for (const at of chain) {
    if (!points.has(at)) continue;
    for (const { file, replacement } of points.points.find((point) => point.number === at)!.disks) {
      for (const parent of [file.parent, replacement?.parent]) {
        if (parent !== null && parent !== undefined) chain.add(parent);
      }
    }
  }
  return chain;
}
