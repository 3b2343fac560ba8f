import type { Bitmap } from '../../bitmap/index.js';
import type { BackupDisk, GraphBackup } from '../../graph/index.js';
import { settleAll } from '../../util/index.js';
import type { Exports } from './exports.js';
import { refusal } from './refusal.js';

/** A disk as backup programs find it. */
export interface AccessedDisk {
  readonly node: string;
  /** The name of its export. */
  readonly export: string;
  readonly mode: 'full' | 'incremental';
  /** Served as `qemu:dirty-bitmap:NAME`; absent where all of the disk is to be taken. */
  readonly bitmap?: string;
}

/** A backup of nodes whose views are served over NBD. */
export class BackupAccess {
  readonly disks: AccessedDisk[] = [];
  readonly #backup: GraphBackup;
  readonly #ends: (() => Promise<void>)[] = [];
  readonly #bits: Bitmap[] = [];
  #isEnding = false;

  /** @param bitmap the one that says what has changed. */
  constructor(backup: GraphBackup) {
    this.#backup = backup;
  }

  /** Serves the views. @throws QmpCommandError; nothing is served then. */
  async serve(exports: Exports, id: string, bitmap: string | undefined): Promise<void> {
    try {
      for (const disk of this.#backup.disks) this.#serve(exports, disk, id, bitmap);
    } catch (error) {
      await this.reclaim();
      throw error;
    }
  }

  /**
   * Ends it. Two clients may say how at the same time, and only one of them is right.
   *
   * @throws QmpCommandError where it is being ended. LacunaError ERR_VIEW_LOST: nothing that was read counts; ERR_GRAPH_BUSY. It is
   * still there then.
   */
  async end(outcome: 'finish' | 'reclaim', id: string): Promise<void> {
    if (this.#isEnding) throw refusal(`Backup access '${id}' is being ended already`);
    this.#isEnding = true;
    try {
      await (outcome === 'finish' ? this.#finish() : this.reclaim());
    } finally {
      this.#isEnding = false;
    }
  }

  /** The backup is durable: bitmaps tell of what was written since its start. */
  async #finish(): Promise<void> {
    await this.#backup.check();
    await this.#endServing();
    await this.#backup.finish(() => {});
    this.#free();
  }

  /** It counts for nothing: bitmaps tell of what was dirty before, too. */
  async reclaim(): Promise<void> {
    await this.#endServing();
    await this.#backup.fail();
    this.#free();
  }

  #serve(exports: Exports, disk: BackupDisk, id: string, bitmap: string | undefined): void {
    const name = `${id}.${disk.name}`;
    const changes = disk.changes();
    if (changes !== undefined) this.#bits.push(changes);
    const served = changes === undefined || bitmap === undefined ? {} : { [bitmap]: changes };
    this.#ends.push(exports.serve(name, disk.device, served));
    this.disks.push({
      node: disk.name,
      export: name,
      mode: disk.mode,
      ...(changes !== undefined && bitmap !== undefined && { bitmap }),
    });
  }

  async #endServing(): Promise<void> {
    const ends = this.#ends.splice(0);
    await settleAll(ends.map((end) => end()));
  }

  #free(): void {
    for (const bits of this.#bits.splice(0)) bits.free();
  }
}
