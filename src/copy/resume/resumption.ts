/** The part of a copy that makes it resumable: its resume file, what an earlier run left there, its checkpoints. */
import {
  type BlockDevice,
  changeHolder,
  type DeviceDescription,
  openDevice,
  takesKey,
} from '../../block/index.js';
import { purposeOf, removeLeftover } from '../../files/index.js';
import type { Arena } from '../../wasm/index.js';
import {
  type Binding,
  checkBinding,
  mismatch,
  reconnects,
  refuseShared,
  sourceBinding,
  type Target,
  UnfinishedFile,
} from '../ends/index.js';
import type { CheckedScope } from '../options/index.js';
import { Checkpoints, type CheckpointsOptions, type Remains } from './checkpoints.js';
import { planBinding } from './plan-binding.js';
import { type CopyMoment, ResumeFile } from './resume-file.js';

export interface ResumptionOptions {
  source: BlockDevice;
  /** What is going to be opened as the target, where that is known. */
  target: DeviceDescription | undefined;
  /** All that the copy reads and writes. */
  files: readonly string[];
  scope: CheckedScope;
  arena: Arena;
}

export interface BeginOptions extends Pick<CheckpointsOptions, 'failed' | 'remains'> {
  target: Target;
  plannedBytes: number;
  /** Bytes of the whole copy. */
  totalBytes: number;
  threads: number;
}

export class Resumption {
  /** What an earlier run left to be done; undefined when this is the first. */
  readonly saved: CopyMoment | undefined;
  readonly #file: ResumeFile;
  readonly #binding: Binding;
  #checkpoints: Checkpoints | undefined;
  /** By the file, before the first of the present checkpoints. */
  #remainedBytes: number | undefined;
  #flusher: BlockDevice | undefined;

  /**
   * Opens a resume file for a copy, before anything is written.
   *
   * @throws LacunaError ERR_RESUME_MISMATCH, ERR_RESUME_CORRUPT, ERR_RESUME_BUSY, ERR_RESUME_FILE
   */
  static async open(path: string, options: ResumptionOptions): Promise<Resumption> {
    const { source, target, files, scope, arena } = options;
    refuseShared('resume', path, files);
    const file = await ResumeFile.open(path);
    try {
      // Now that it is there, whatever else leads to it is seen as well.
      refuseShared('resume', path, files);
      const binding = { ...sourceBinding(source, target), ...planBinding(scope) };
      const saved = file.read({ size: source.size, arena });
      if (saved !== undefined) checkBinding(file.path, saved.state.binding, binding);
      return new Resumption(file, binding, saved);
    } catch (error) {
      file.close();
      throw error;
    }
  }

  private constructor(file: ResumeFile, binding: Binding, saved: CopyMoment | undefined) {
    this.#file = file;
    this.#binding = binding;
    this.saved = saved;
    this.#remainedBytes = saved && saved.data.dirtyBytes + saved.zero.dirtyBytes;
  }

  /** The file, and the bytes that it says are left for a later run; undefined where it says nothing yet. */
  get resumable(): { file: string; remainingBytes: number } | undefined {
    const remainingBytes = this.#checkpoints?.remainingBytes ?? this.#remainedBytes;
    return remainingBytes === undefined ? undefined : { file: this.#file.path, remainingBytes };
  }

  get remains(): Remains | undefined {
    return this.#checkpoints?.remains;
  }

  get warnings(): string[] {
    return this.#checkpoints?.warnings ?? [];
  }

  /**
   * Chooses where the target is going to be made, and notes it durably. What an earlier run left that died before it
   * noted that there was a file is removed.
   *
   * @throws LacunaError ERR_RESUME_FILE, ERR_DEVICE_OPEN
   */
  async planTarget(filename: string): Promise<string> {
    const earlier = this.#file.planned;
    if (earlier !== undefined && purposeOf(earlier.path, earlier.name) === 'resumable') {
      removeLeftover({ path: earlier.path });
    }
    const planned = UnfinishedFile.plan(filename);
    await this.#file.plan(planned);
    return planned.path;
  }

  /** @throws LacunaError ERR_RESUME_MISMATCH */
  checkTarget({ binding, made }: Target): void {
    if (this.saved === undefined) return;
    const { path } = this.#file;
    const { state } = this.saved;
    checkBinding(path, state.binding, { target: binding.target });
    if (made === undefined && state.made !== undefined) {
      const what = `the copy began in a new file, ${state.made.path}`;
      throw mismatch(
        path,
        `${what}, and ${binding.target} itself would be written now (--in-place, or inPlace)`,
      );
    }
    checkBinding(path, state.binding, binding);
  }

  /**
   * Makes checkpoints from here on; what remains is exact, nothing of it has been begun, and it is freed here. Called
   * again when the copy goes on after a failure, with a target that may have been opened anew.
   */
  async begin(options: BeginOptions): Promise<void> {
    const { target, remains, plannedBytes, totalBytes, threads, failed } = options;
    await this.#closeCheckpoints();
    await target.anchor();
    const flusher = await this.#openFlusher(target.device, threads);
    this.#checkpoints = new Checkpoints({
      file: this.#file,
      state: {
        binding: { ...this.#binding, ...target.binding },
        made: target.made,
        targetIsZero: this.saved?.state.targetIsZero ?? target.isZero,
        plannedBytes,
        totalBytes,
      },
      remains,
      flush: (signal) => flusher.flush({ signal }),
      failed,
    });
    await this.#checkpoints.begin();
  }

  /**
   * Makes no more checkpoints until the next {@link begin}.
   *
   * @throws what a flush has failed with
   */
  async end(): Promise<void> {
    await this.#checkpoints?.end();
  }

  /** Removes the file: the copy is complete, and durable under its name. */
  async complete(): Promise<void> {
    await this.#file.remove();
    this.remains?.data.free();
    this.remains?.zero.free();
  }

  /** Closes and frees what the checkpoints of an earlier round have held. */
  async #closeCheckpoints(): Promise<void> {
    this.remains?.data.free();
    this.remains?.zero.free();
    this.#remainedBytes = this.resumable?.remainingBytes;
    this.#checkpoints = undefined;
    await this.#flusher?.close();
    this.#flusher = undefined;
  }

  /**
   * After a failure: keeps what remains as it is now. Never fails.
   *
   * @param unflushed whether a flush of the target has failed, so that the next one proves nothing
   */
  async keep(unflushed: boolean): Promise<void> {
    if (unflushed) await this.#checkpoints?.end().catch(() => {});
    else await this.#checkpoints?.keep();
  }

  /** The shared memory must not be touched any more. */
  abort(): void {
    this.#checkpoints?.abort();
  }

  async close(): Promise<void> {
    this.#file.close();
    await this.#flusher?.close();
  }

  /**
   * The opening whose flush makes durable what all threads have written. A connection that is made again when it
   * is lost cannot: it knows of its own writes whether the server has forgotten them, but not of other ones'.
   */
  async #openFlusher(device: BlockDevice, threads: number): Promise<BlockDevice> {
    const { description } = device;
    if (threads === 0 || description === undefined || !reconnects(device)) return device;
    const impatient = changeHolder(description, (own) =>
      takesKey(own, 'reconnect-delay') ? { ...own, 'reconnect-delay': 0 } : own,
    );
    this.#flusher = await openDevice(impatient, { writable: true });
    return this.#flusher;
  }
}
