import { Bitmap } from '../../bitmap/index.js';
import { exportBitmap, openDevice } from '../../block/index.js';
import { populate } from '../../copy/index.js';
import { Context } from '../../extent/index.js';
import type { Job, JobControl } from '../../job/index.js';
import type { MachineDisk } from '../inspect/index.js';
import { journalOf, machineJob, noteLeft, type Target } from '../session/index.js';
import { type Journal, SessionFolder, SessionNames, writeJournal } from '../state/index.js';
import { Teardown, ViewMaker } from '../view/index.js';
import { type HandedImage, handImage } from './image.js';
import type { MachinePopulateOptions } from './options.js';
import { type BitmapOfNode, type PopulatePlan, planPopulate } from './plan-populate.js';

/** A bitmap as it is at the end; what is written after the merge is dirty in it as well. */
export interface PopulatedBitmap {
  /** The disk, or the node, that has it. */
  readonly disk: string;
  /** The node that has it. */
  readonly node: string;
  /** Its name. */
  readonly name: string;
  /** Bytes of the disk. */
  readonly size: number;
  /** Bytes that one bit stands for. */
  readonly granularity: number;
  /** Dirty bytes, in whole granules. */
  readonly dirtyBytes: number;
  /** It is stored in the image, and so outlives QEMU. */
  readonly persistent: boolean;
  /** It was not there before. */
  readonly isNew: boolean;
}

/** Result of a populate of a running machine. */
export interface MachinePopulateReport {
  /** The targets, in their order. */
  readonly bitmaps: readonly PopulatedBitmap[];
  /** What a person should know: status that was refused and taken for data, or what could not be removed yet. */
  readonly warnings: readonly string[];
}

/** QEMU holds back the writes of the guest for so long at most. */
const TRANSACTION_MS = 30_000;

/** @param before what is done before anything else */
export function populateMachine(
  target: Target,
  options: MachinePopulateOptions,
  before: () => Promise<readonly string[]>,
): Job<MachinePopulateReport> {
  const work = new MachinePopulate(target, options);
  const { signal } = options;
  return machineJob({ what: 'a populate of a running machine', signal, before, work });
}

class MachinePopulate {
  readonly #target: Target;
  readonly #options: MachinePopulateOptions;
  readonly #names = SessionNames.random();
  readonly #teardown: Teardown;
  #folder: SessionFolder | undefined;
  #journal: Journal | undefined;
  #image: HandedImage | undefined;
  #counts = { totalBytes: 0, doneBytes: 0 };
  #looking: Job<string[]> | undefined;

  constructor(target: Target, options: MachinePopulateOptions) {
    this.#target = target;
    this.#options = options;
    this.#teardown = new Teardown(target.monitor, this.#names);
  }

  counted() {
    const { totalBytes, doneBytes } = this.#counts;
    return { totalBytes, doneBytes: doneBytes + (this.#looking?.progress().doneBytes ?? 0) };
  }

  async run(control: JobControl): Promise<MachinePopulateReport> {
    const options = { ...this.#options, signal: control.ending };
    const plan = await planPopulate(this.#target, options);
    this.#counts.totalBytes = plan.sources.reduce((sum, { size }) => sum + size, 0);
    const warnings: string[] = [];
    try {
      await this.#prepare(plan, control.ending);
      const recordings = await this.#record(plan, control.ending);
      await this.#exportSources(plan, control.ending);
      warnings.push(...(await this.#hand(plan, control)));
      control.throwIfEnding();
      await this.#merge(plan, recordings);
    } catch (error) {
      await this.#undo(error as Error);
      throw error;
    }
    await this.#takeDown().catch((error: Error) => warnings.push(error.message));
    return { bitmaps: await this.#look(plan), warnings };
  }

  /** The journal says whose names they are before any of it is there. */
  async #prepare({ targets }: PopulatePlan, signal: AbortSignal): Promise<void> {
    const { folder: base, monitor } = this.#target;
    const folder = await SessionFolder.create(base, this.#names.prefix);
    this.#folder = folder;
    const disks = targets.map(({ disk }) => disk);
    this.#journal = journalOf(this.#target, this.#names, folder, disks);
    await writeJournal(folder.path, this.#journal);
    const { server, isOurs } = this.#journal.nbd;
    if (isOurs) await new ViewMaker(monitor, this.#names, 'overlay', signal).startServer(server);
  }

  /**
   * Records what is written from here on, under names of ours: a bitmap has the name that the caller chose only when it is
   * whole, so that a process that dies leaves none behind that lacks something.
   */
  async #record({ written }: PopulatePlan, signal: AbortSignal) {
    const recordings = written.map(({ node }, i) => ({ node, name: this.#names.recording(i) }));
    const actions = recordings.map((recording, i) => ({
      type: 'block-dirty-bitmap-add',
      data: { ...recording, granularity: written[i].granularity, persistent: false },
    }));
    await this.#target.monitor.execute('transaction', { actions }, { signal });
    return recordings;
  }

  async #exportSources({ sources }: PopulatePlan, signal: AbortSignal): Promise<void> {
    for (const [i, { node }] of sources.entries()) {
      const args = {
        type: 'nbd',
        id: this.#names.export(i),
        'node-name': node,
        name: this.#names.export(i),
        'allocation-depth': true,
      };
      await this.#target.monitor.execute('block-export-add', args, { signal });
    }
  }

  /** Finds out what is allocated, and lets QEMU open it as a bitmap; returns warnings. */
  async #hand(plan: PopulatePlan, control: JobControl): Promise<string[]> {
    const { size, granularity, sources } = plan;
    const found = new Bitmap({ size, granularity });
    const warnings: string[] = [];
    const file = this.#folder!.scratch(0);
    try {
      for (const [i, source] of sources.entries()) {
        warnings.push(...(await this.#lookInto(source, i, found, control)));
      }
      await exportBitmap(file, { bitmap: found, name: this.#names.dirty, exclusive: true });
    } finally {
      found.free();
    }
    const { monitor } = this.#target;
    this.#image = await handImage(monitor, this.#names, file, this.#options.serve);
    return warnings;
  }

  async #lookInto(source: MachineDisk, index: number, found: Bitmap, control: JobControl) {
    const { mode = 'full' } = this.#options;
    const { size } = source;
    const own = new Bitmap({ size, granularity: found.granularity });
    const { server } = this.#journal!.nbd;
    const contexts = mode === 'top' ? [Context.depth] : [];
    const name = this.#names.export(index);
    try {
      await using device = await openDevice(
        { driver: 'nbd', server, export: name, contexts },
        { signal: control.ending },
      );
      const job = populate({ sources: [device], targets: [own], mode, signal: control.signal });
      this.#looking = job;
      const warnings = await control.run(job);
      // A backing file may have another size than the disk above it.
      own.resize(found.size);
      found.merge(own);
      return warnings;
    } finally {
      own.free();
      this.#looking = undefined;
      this.#counts.doneBytes += size;
    }
  }

  /** Done as a whole or not at all: new bitmaps are added, and all get everything. */
  async #merge({ targets, merge }: PopulatePlan, recordings: readonly BitmapOfNode[]) {
    const bits = { node: this.#image!.node, name: this.#names.dirty };
    const added = targets.filter(({ isNew }) => isNew);
    const actions: { type: string; data: object }[] = added.map(
      ({ disk: { node }, name, granularity, persistent }) => ({
        type: 'block-dirty-bitmap-add',
        data: { node, name, granularity, persistent },
      }),
    );
    for (const { disk, name } of targets) {
      const isOther = (one: BitmapOfNode) => one.node !== disk.node || one.name !== name;
      const bitmaps = [bits, ...recordings, ...merge.filter(isOther)];
      actions.push({
        type: 'block-dirty-bitmap-merge',
        data: { node: disk.node, target: name, bitmaps },
      });
    }
    await this.#target.monitor.executeOnce(
      'transaction',
      { actions },
      {
        timeoutMs: TRANSACTION_MS,
        // Into bitmaps that were there it is merged again without harm.
        isDone: async () => added.length > 0 && (await this.#areThere(added)),
      },
    );
  }

  async #areThere(bitmaps: PopulatePlan['targets']): Promise<boolean> {
    const infos = await this.#infosOf(bitmaps);
    return infos.every((info) => info !== undefined);
  }

  async #infosOf(bitmaps: PopulatePlan['targets']) {
    const nodes = await this.#target.monitor.execute('query-named-block-nodes');
    return bitmaps.map(({ disk, name }) => {
      const node = nodes.find((one) => one['node-name'] === disk.node);
      return node?.['dirty-bitmaps']?.find((one) => one.name === name);
    });
  }

  async #look({ targets, size }: PopulatePlan): Promise<PopulatedBitmap[]> {
    const infos = await this.#infosOf(targets);
    return targets.map(({ disk, name, granularity, persistent, isNew }, i) => ({
      ...{ disk: disk.name, node: disk.node, name, size, granularity, persistent, isNew },
      dirtyBytes: infos[i]?.count ?? 0,
    }));
  }

  /** What cannot be taken away is left to the journal, and said. */
  async #undo(error: Error): Promise<void> {
    await this.#takeDown().catch((failure: Error) => noteLeft(error, failure));
  }

  async #takeDown(): Promise<void> {
    const [folder, journal] = [this.#folder, this.#journal];
    if (folder === undefined) return;
    try {
      await this.#teardown.run();
      if (journal !== undefined) await this.#teardown.endServer(journal.nbd);
    } catch (error) {
      folder.leave();
      throw error;
    } finally {
      await this.#image?.close();
    }
    folder.remove();
  }
}
