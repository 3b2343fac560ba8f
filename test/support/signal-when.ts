import type { ChildProcess } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';

/** Sends a signal to a process as soon as it is ready for it; none where it ends before, which its exit code tells. */
export async function signalWhen(
  child: ChildProcess,
  signal: NodeJS.Signals,
  isReady: () => boolean | Promise<boolean>,
): Promise<void> {
  const hasEnded = () => child.exitCode !== null || child.signalCode !== null;
  while (!(await isReady())) {
    if (hasEnded()) return;
    await sleep(10);
  }
  child.kill(signal);
}
