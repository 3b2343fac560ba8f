import { lstat } from 'node:fs/promises';
import { LacunaError } from '../../errors/index.js';
import type { SessionHold } from '../session/index.js';
import { checkpointOf } from '../state/index.js';
import type { Domain } from './domain.js';
import { dropCheckpoint } from './kept-checkpoints.js';

/** Between two looks at the scratch images. */
const PAUSE_MS = 500;
const SECTOR = 512;

/** A point in time that is held by a backup of libvirt's. */
export class DomainHold implements SessionHold {
  readonly #domain: Domain;
  readonly #folder: string;
  readonly #socket: string;
  #timer: NodeJS.Timeout | undefined;

  /** @param folder where sessions and kept checkpoints are */
  constructor(domain: Domain, folder: string, socket: string) {
    this.#domain = domain;
    this.#folder = folder;
    this.#socket = socket;
  }

  /** Looks at the scratch images until the session ends: when one has outgrown its limit, the view is given up. */
  watch(files: readonly string[], limitBytes: number, lose: (failure: LacunaError) => void): void {
    const look = async () => {
      const sizes = await Promise.all(files.map(allocated));
      if (this.#timer === undefined) return;
      if (sizes.some((size) => size > limitBytes)) lose(scratchFull(this.#domain.name));
      else this.#timer = setTimeout(look, PAUSE_MS);
    };
    this.#timer = setTimeout(look, PAUSE_MS);
  }

  async check(): Promise<void> {
    let socket: string | undefined;
    try {
      socket = await this.#domain.backupSocket();
    } catch (cause) {
      throw this.#lost('libvirt does not say that the backup still runs', cause);
    }
    if (socket !== this.#socket) throw this.#lost('its backup in libvirt is gone');
  }

  unwatch(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  async end(): Promise<void> {
    await this.#domain.endBackup(this.#socket);
  }

  async forget(generation: string): Promise<string[]> {
    const warnings = await this.#domain.deleteCheckpoint(checkpointOf(generation));
    dropCheckpoint(this.#domain, this.#folder, generation);
    return warnings;
  }

  #lost(why: string, cause?: unknown): LacunaError {
    const device = this.#domain.name;
    return new LacunaError(
      'ERR_VIEW_LOST',
      `${device}: the view of the backup's point in time was lost: ${why}; nothing that was read of it counts, so call fail() and begin again`,
      { device, cause, retryable: true },
    );
  }
}

async function allocated(file: string): Promise<number> {
  try {
    return (await lstat(file)).blocks * SECTOR;
  } catch {
    // libvirt removes it when the backup ends, which the check after the last read finds.
    return 0;
  }
}

function scratchFull(device: string): LacunaError {
  return new LacunaError(
    'ERR_SCRATCH_FULL',
    `${device}: the guest overwrites more than the scratch images may hold, so the backup was given up; allow more (scratchBytes), or read faster`,
    { device, retryable: true },
  );
}
