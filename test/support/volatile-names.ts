/** Changes of files that are lost in a power cut unless they were synced, one step each. */
import fs from 'node:fs';
import { dirname } from 'node:path';
import { type RepositoryOperations, repositoryOperations } from '#dist/repository/layout/index.js';

/** What the test ends the work with. */
export const POWER_CUT = new Error('the power was cut');

/**
 * Does so many steps, then cuts the power: bytes that were not synced are lost, and where `losesNames` so are names that
 * were given or taken since their folder was synced. All steps after that fail.
 */
export class VolatileNames {
  /** Steps until now. */
  steps = 0;
  readonly #last: number;
  readonly #losesNames: boolean;
  readonly #unsynced = new Set<number>();
  #undo: { folder: string; undo(): void }[] = [];
  #isCut = false;

  constructor(last: number, losesNames: boolean) {
    this.#last = last;
    this.#losesNames = losesNames;
  }

  get isCut(): boolean {
    return this.#isCut;
  }

  readonly operations: RepositoryOperations = {
    create: (path, mode) =>
      this.#step(() => {
        const fd = repositoryOperations.create(path, mode);
        this.#lose(path, () => fs.rmSync(path, { force: true }));
        return fd;
      }),
    write: (fd, bytes, position) =>
      this.#step(() => {
        this.#unsynced.add(fd);
        repositoryOperations.write(fd, bytes, position);
      }),
    sync: (fd) =>
      this.#step(() => {
        this.#unsynced.delete(fd);
      }),
    link: (from, to) =>
      this.#step(() => {
        repositoryOperations.link(from, to);
        this.#lose(to, () => fs.rmSync(to, { force: true }));
      }),
    rename: (from, to) =>
      this.#step(() => {
        const old = fs.existsSync(to) ? fs.readFileSync(to) : undefined;
        repositoryOperations.rename(from, to);
        this.#lose(to, () => {
          if (!fs.existsSync(to)) return;
          fs.renameSync(to, from);
          if (old !== undefined) fs.writeFileSync(to, old);
        });
      }),
    remove: (path) =>
      this.#step(() => {
        const old = fs.existsSync(path) ? fs.readFileSync(path) : undefined;
        repositoryOperations.remove(path);
        this.#lose(path, () => old !== undefined && fs.writeFileSync(path, old));
      }),
    syncFolder: (path) =>
      this.#step(() => {
        this.#undo = this.#undo.filter(({ folder }) => folder !== dirname(path));
      }),
  };

  #lose(path: string, undo: () => void): void {
    this.#undo.push({ folder: dirname(path), undo });
  }

  #step<T>(work: () => T): T {
    if (this.steps === this.#last) this.#cut();
    if (this.#isCut) throw POWER_CUT;
    this.steps++;
    return work();
  }

  #cut(): void {
    if (this.#isCut) return;
    this.#isCut = true;
    for (const fd of this.#unsynced) {
      try {
        fs.ftruncateSync(fd, 0);
      } catch {
        // It was closed without being synced, and removed.
      }
    }
    if (this.#losesNames) for (const { undo } of this.#undo.reverse()) undo();
  }
}
