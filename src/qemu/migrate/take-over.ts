/** The moment after the source has handed over: the destination runs, or the source goes on, and never both. */
import { setTimeout as sleep } from 'node:timers/promises';
import { openDevice } from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import type { MigrationInfo, Monitor, RunStatus } from '../../qmp/index.js';
import { holdersOf } from './holders.js';
import { ask } from './memory.js';

const LIMIT_MS = 30_000;
const PAUSE_MS = 20;
/** The machine stands still meanwhile. */
const RECONNECT_MS = 3000;

export interface TakeOverOptions {
  readonly source: Monitor;
  readonly destination: Monitor;
  /** Images on the destination. */
  readonly disks: readonly { readonly target: string; readonly format: string }[];
  /** Whether the machine is to run: it did before. */
  readonly mustRun: boolean;
}

/**
 * Sees to it that the destination runs. Where it has ended, the source goes on with its own disks, but only while the images of
 * the destination are locked here and open nowhere else: nobody else can run on them then.
 *
 * @throws LacunaError ERR_MIGRATION_FAILED where the source goes on; ERR_MIGRATION_UNDECIDED where nobody can tell.
 */
export async function takeOver(options: TakeOverOptions): Promise<void> {
  const { destination } = options;
  let failure: unknown;
  for (const end = performance.now() + LIMIT_MS; performance.now() < end; await sleep(PAUSE_MS)) {
    try {
      if (await runs(options)) return;
    } catch (error) {
      if (!destination.isConnected) return await goBack(options, destination.name, error);
      // Such as a lock that somebody is about to give back.
      failure = error;
    }
  }
  throw undecided(destination.name, failure);
}

async function runs({ destination, mustRun }: TakeOverOptions): Promise<boolean> {
  const { status } = (await ask(destination, 'query-migrate', RECONNECT_MS)) as MigrationInfo;
  if (status !== 'completed') return false;
  if (!mustRun) return true;
  const { running } = (await ask(destination, 'query-status', RECONNECT_MS)) as RunStatus;
  if (running) return true;
  // It was started with -S, or could not open its images.
  await destination.execute('cont');
  return false;
}

/**
 * The destination cannot be asked: unless it has its images open, the source goes on.
 *
 * @throws as {@link takeOver}
 */
export async function goBack(
  { source, disks, mustRun }: Omit<TakeOverOptions, 'destination'>,
  device: string,
  cause: unknown,
): Promise<never> {
  const images: AsyncDisposable[] = [];
  try {
    for (const { target, format } of disks) images.push(await locked(target, format));
    await unheld(disks.map(({ target }) => target));
    if (mustRun) await source.execute('cont');
  } catch (error) {
    throw undecided(device, error);
  } finally {
    for (const image of images) await image[Symbol.asyncDispose]();
  }
  throw new LacunaError(
    'ERR_MIGRATION_FAILED',
    `${device}: the destination has ended before it was seen to run: ${(cause as Error).message}`,
    { device, cause, retryable: true },
  );
}

/** A process that dies gives its locks back, if not at once. */
async function locked(filename: string, format: string): Promise<AsyncDisposable> {
  const file = { driver: 'file', filename } as const;
  const image = format === 'qcow2' ? ({ driver: 'qcow2', file, backing: null } as const) : file;
  for (const end = performance.now() + RECONNECT_MS; ; await sleep(PAUSE_MS)) {
    try {
      return await openDevice(image, { writable: true });
    } catch (error) {
      const isLocked = error instanceof LacunaError && error.code === 'ERR_DEVICE_LOCKED';
      if (!isLocked || performance.now() > end) throw error;
    }
  }
}

/** A machine of QEMU 10 that has not begun to run has its images open, and locks them only when it does. */
async function unheld(images: readonly string[]): Promise<void> {
  for (const end = performance.now() + RECONNECT_MS; ; await sleep(PAUSE_MS)) {
    const [pid] = holdersOf(images);
    if (pid === undefined) return;
    if (performance.now() < end) continue;
    throw new Error(`the process ${pid} may have its images open, and could be told to go on`);
  }
}

function undecided(device: string, cause: unknown): LacunaError {
  const why = cause instanceof Error ? `: ${cause.message}` : '';
  return new LacunaError(
    'ERR_MIGRATION_UNDECIDED',
    `${device}: the source has handed over, and the destination is not known to run${why}. Look at its query-status. Where it stands still, end what holds its images, and let it go on (cont). Only if it has ended for good may the source go on (cont); never let both`,
    { device, cause },
  );
}
