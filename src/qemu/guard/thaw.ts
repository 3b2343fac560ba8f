import { setTimeout as sleep } from 'node:timers/promises';
import { LacunaError } from '../../errors/index.js';
import type { GuestAgent } from '../../qmp/index.js';

const TRY_MS = 5000;
const PAUSE_MS = 200;

/**
 * Tells an agent to thaw until it does.
 *
 * @throws LacunaError ERR_MACHINE_FROZEN
 */
export async function thawFor(agent: GuestAgent, limitMs: number): Promise<void> {
  const end = performance.now() + limitMs;
  for (;;) {
    try {
      await agent.thaw({ timeoutMs: TRY_MS });
      return;
    } catch (cause) {
      const { code, errno } = cause as LacunaError;
      // An agent that may not freeze may not thaw either, and has nothing to.
      if (errno === 'CommandNotFound') return;
      if (performance.now() > end || code === 'ERR_QMP_DISCONNECTED') {
        throw mayBeFrozen(agent.name, cause);
      }
      await sleep(PAUSE_MS);
    }
  }
}

/** Nobody knows that the guest has thawed. */
export function mayBeFrozen(device: string, cause: unknown): LacunaError {
  return new LacunaError(
    'ERR_MACHINE_FROZEN',
    `${device}: the guest was told to freeze, and does not confirm that it has thawed: look into the guest at once`,
    { device, cause },
  );
}
