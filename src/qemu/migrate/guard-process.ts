/**
 * The process that decides a migration when the one that began it is gone: a source that has not handed over goes on, else
 * the destination does. QEMU serves one client of a monitor at a time, so both monitors are free then. It ends by itself.
 */
import { rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Monitor, type QmpAddress } from '../../qmp/index.js';
import { cancelMigration, restoreCapabilities } from '../guard/index.js';
import type { Guarded } from './guard.js';
import { goBack, takeOver } from './take-over.js';

const SOURCE_MS = 60_000;
/** The machine stands still meanwhile. */
const DESTINATION_MS = 10_000;
const PAUSE_MS = 50;

let guarded: Guarded | undefined;

// Again where it has changed.
process.on('message', (given: Guarded) => {
  guarded = given;
  process.send!('ready');
});

process.once('disconnect', () => {
  decide().then(
    () => process.exit(0),
    () => process.exit(1),
  );
});

async function decide(): Promise<void> {
  if (guarded === undefined) return;
  const { disks, mustRun, capabilities, folder } = guarded;
  await using source = await patiently(guarded.source, SOURCE_MS);
  if (!(await cancelMigration(source))) return;
  let destination: Monitor;
  try {
    destination = await patiently(guarded.destination, DESTINATION_MS);
  } catch (error) {
    return await goBack({ source, disks, mustRun }, 'the destination', error);
  }
  await takeOver({ source, destination, disks, mustRun });
  await restoreCapabilities(destination, capabilities).catch(() => {});
  await destination.close();
  await source.execute('quit').catch(() => {});
  rmSync(folder, { recursive: true, force: true });
}

/** A monitor whose last client has just died is free in a moment. */
async function patiently(address: QmpAddress, limitMs: number): Promise<Monitor> {
  for (const end = performance.now() + limitMs; ; await sleep(PAUSE_MS)) {
    try {
      return await Monitor.connect(address);
    } catch (error) {
      if (performance.now() > end) throw error;
    }
  }
}

// What ends the process that began this one must not end this one before that is decided.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
