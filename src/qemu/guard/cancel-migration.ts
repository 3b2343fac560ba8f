/** Ends a migration that has not switched, so that its source goes on. */
import { setTimeout as sleep } from 'node:timers/promises';
import { LacunaError } from '../../errors/index.js';
import type { MigrationCapability, MigrationInfo, Monitor } from '../../qmp/index.js';

/** For a migration to end once it is told to. */
const LIMIT_MS = 60_000;
const PAUSE_MS = 5;

/** States in which no migration is under way. */
const AT_REST: ReadonlySet<string> = new Set(['none', 'completed', 'failed', 'cancelled']);
/** The machine is being handed over, and nobody can call it back. */
const GOES_OVER = 'device';

/** Whether a migration is neither under way nor waiting to be told to go on. */
export function isAtRest({ status }: MigrationInfo): boolean {
  return status === undefined || AT_REST.has(status);
}

/**
 * Cancels what can be cancelled, and waits until nothing is under way. A machine that ran goes on by itself then, unless
 * it has handed over. Safe to call at any time, by anybody, over and over.
 *
 * @returns whether the machine has handed over: it must not go on
 * @throws LacunaError ERR_MACHINE_LEFTOVERS where it does not end; what the monitor throws.
 */
export async function cancelMigration(monitor: Monitor): Promise<boolean> {
  for (const end = performance.now() + LIMIT_MS; ; await sleep(PAUSE_MS)) {
    const info = await monitor.execute('query-migrate');
    const { status } = info;
    if (isAtRest(info)) {
      const { status: state } = await monitor.execute('query-status');
      // The end of a migration is told before the machine goes on.
      if (state !== 'finish-migrate') return state === 'postmigrate' && status === 'completed';
    } else if (status === 'cancelling') {
      await wake(monitor);
    } else if (status !== GOES_OVER) {
      await monitor.execute('migrate_cancel');
    }
    if (performance.now() > end) throw stays(monitor.name, status ?? 'none');
  }
}

/**
 * A cancel between the stop of the machine and `pre-switchover` is lost: QEMU waits there to be told to go on, and the machine
 * stands still. Told to go on it sees that it was cancelled. Harmless where it does not wait.
 */
async function wake(monitor: Monitor): Promise<void> {
  try {
    await monitor.execute('migrate-continue', { state: 'cancelling' });
  } catch (error) {
    // It has ended meanwhile.
    if ((error as LacunaError).code !== 'ERR_QMP_COMMAND') throw error;
  }
}

/** Gives a monitor back the capabilities that a migration has changed. */
export async function restoreCapabilities(
  monitor: Monitor,
  capabilities: readonly MigrationCapability[],
): Promise<void> {
  if (capabilities.length === 0) return;
  await monitor.execute('migrate-set-capabilities', { capabilities });
}

function stays(device: string, status: string): LacunaError {
  return new LacunaError(
    'ERR_MACHINE_LEFTOVERS',
    `${device}: its migration was cancelled, and is still "${status}"; look at query-migrate and query-status`,
    { device, retryable: true },
  );
}
