import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Bitmap } from '../../bitmap/index.js';
import { fromWire, LacunaError } from '../../errors/index.js';
import { ownFile, Watchdog } from '../../util/index.js';
import { GRANULE } from './granule.js';
import type { LandingOrder, Order, Said } from './messages.js';
import type { PushProgress } from './steering.js';

const PROGRAM = 'qemu/push/landing-process.js';

/** QEMU may have to wait for a process that says nothing: after so long it is killed. */
const SILENT_MS = 5000;
/** The same for one that has to start first. */
const START_MS = 60_000;
const PING_MS = 1000;

/** What has landed of a disk. Nothing is in both bitmaps. */
export class LandedRanges {
  readonly data: Bitmap;
  readonly zero: Bitmap;
  /** What must land: all of the disk, unless {@link want} says less. */
  readonly #wanted: Bitmap;
  #isFree = false;
  #progress: PushProgress = { doneBytes: 0, totalBytes: 0 };

  constructor(size: number) {
    this.data = new Bitmap({ size, granularity: GRANULE });
    this.zero = new Bitmap({ size, granularity: GRANULE });
    this.#wanted = new Bitmap({ size, granularity: GRANULE });
    this.#wanted.setAll();
  }

  /** No more than this must land. */
  want(changes: Bitmap): void {
    this.#wanted.intersect(changes);
  }

  /** Bytes that must land, and have not. */
  get missingBytes(): number {
    const missing = this.#wanted.snapshot();
    for (const landed of [this.data, this.zero]) missing.subtract(landed);
    const { dirtyBytes } = missing;
    missing.free();
    return dirtyBytes;
  }

  /** How far it is; once freed, how far it was then. */
  get progress(): PushProgress {
    if (this.#isFree) return this.#progress;
    const { dirtyBytes: totalBytes } = this.#wanted;
    // Asked for many times a second: without a bitmap of its own. QEMU writes what must land, and no more.
    const landedBytes = this.data.dirtyBytes + this.zero.dirtyBytes;
    return { doneBytes: Math.min(landedBytes, totalBytes), totalBytes };
  }

  /** Takes what has landed last. Does nothing once freed: a backup that is given up is told of what QEMU goes on writing. */
  land(isData: boolean, offset: number, length: number): void {
    if (this.#isFree) return;
    (isData ? this.data : this.zero).set(offset, length);
    (isData ? this.zero : this.data).reset(offset, length);
  }

  /** Freeing again is harmless. */
  free(): void {
    if (this.#isFree) return;
    this.#progress = this.progress;
    this.#isFree = true;
    this.data.free();
    this.zero.free();
    this.#wanted.free();
  }
}

/** Files that QEMU pushes disks into, through a process that serves them. */
export class Landing {
  /** What has landed, by the number of the disk. */
  readonly ranges: readonly LandedRanges[];
  readonly socket: string;
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly #lost: (failure: Error) => void;
  readonly #pings: NodeJS.Timeout;
  #silence: Watchdog;
  #answered: (() => void) | undefined;
  #failure: Error | undefined;
  #isClosed = false;

  /**
   * Starts the process.
   *
   * @param lost called once, when a write was refused, or the process is gone.
   * @throws LacunaError ERR_PUSH_FAILED; what opening the files throws.
   */
  static async start(
    given: Omit<LandingOrder, 'order'>,
    lost: (failure: Error) => void,
  ): Promise<Landing> {
    const landing = new Landing(given, lost);
    try {
      await landing.#tell({ order: 'serve', ...given });
      landing.#watch(SILENT_MS);
      return landing;
    } catch (error) {
      await landing.close();
      landing.free();
      throw error;
    }
  }

  private constructor(
    { socket, disks }: Omit<LandingOrder, 'order'>,
    lost: (failure: Error) => void,
  ) {
    this.socket = socket;
    this.#lost = lost;
    this.ranges = disks.map(({ size }) => new LandedRanges(size));
    // Of a session of its own: what a terminal sends to this process is not for that one.
    this.#child = fork(fileURLToPath(ownFile(PROGRAM)), {
      detached: true,
      execArgv: [],
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    });
    this.#exited = once(this.#child, 'exit').catch(() => {});
    this.#child.on('message', (said: Said) => this.#hear(said));
    this.#child.on('error', (error) => this.#fail(error));
    this.#child.on('exit', (code, by) => this.#fail(new Error(`it ended with ${by ?? code}`)));
    this.#pings = setInterval(() => this.#send({ order: 'ping' }), PING_MS);
    this.#silence = this.#watchdog(START_MS);
  }

  /** How far all disks are together. */
  get progress(): PushProgress {
    const all = this.ranges.map(({ progress }) => progress);
    const sum = (name: keyof PushProgress) => all.reduce((bytes, one) => bytes + one[name], 0);
    return { doneBytes: sum('doneBytes'), totalBytes: sum('totalBytes') };
  }

  /** Why a write was refused, or the process is gone; undefined as long as all is well. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Resolves when everything that QEMU was told is written is in `ranges`. */
  async settle(): Promise<void> {
    await this.#tell({ order: 'settle' });
  }

  /** Ends the process, and with it the connections of QEMU. Closing again is harmless. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#pings);
    this.#silence.stop();
    this.#child.kill('SIGKILL');
    this.#answered?.();
    await this.#exited;
  }

  /** Gives back the bitmaps. Nobody asks for what has landed any more. */
  free(): void {
    for (const ranges of this.ranges) ranges.free();
  }

  async #tell(order: Order): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#answered = resolve;
      if (this.#failure !== undefined || this.#isClosed) resolve();
      else this.#send(order);
    });
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#isClosed) throw gone('it was ended');
  }

  #send(order: Order): void {
    if (this.#child.connected) this.#child.send(order, (error) => error && this.#fail(error));
  }

  #hear({ is, ranges = [], failure }: Said): void {
    if (this.#isClosed) return;
    this.#silence.progress();
    if (is === 'failed') this.#fail(fromWire(failure!));
    for (const [disk, ...range] of ranges) this.ranges[disk].land(...range);
    if (is === 'serving' || is === 'settled') this.#answered?.();
  }

  #fail(error: Error): void {
    if (this.#isClosed || this.#failure !== undefined) return;
    this.#failure = error instanceof LacunaError ? error : gone(error.message, error);
    this.#answered?.();
    this.#lost(this.#failure);
  }

  #watch(limitMs: number): void {
    this.#silence.stop();
    this.#silence = this.#watchdog(limitMs);
  }

  #watchdog(limitMs: number): Watchdog {
    const watchdog = new Watchdog(limitMs, () => {
      this.#fail(new Error(`it said nothing for ${limitMs / 1000} s, and was killed`));
      this.#child.kill('SIGKILL');
    });
    watchdog.watch();
    return watchdog;
  }
}

function gone(why: string, cause?: unknown): LacunaError {
  return new LacunaError('ERR_PUSH_FAILED', `the process that QEMU pushes to is gone: ${why}`, {
    cause,
    retryable: true,
  });
}
