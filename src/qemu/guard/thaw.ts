import { setTimeout as sleep } from 'node:timers/promises';
import { LacunaError } from '../../errors/index.js';

/** A guest agent, at a socket or behind libvirt. */
export interface FreezingAgent extends AsyncDisposable {
  readonly name: string;
  /** @returns how many file systems are frozen */
  freeze(options: { timeoutMs: number }): Promise<number>;
  /** @returns how many file systems were thawed */
  thaw(options: { timeoutMs: number }): Promise<number>;
}

const TRY_MS = 5000;
const PAUSE_MS = 200;

/**
 * Tells an agent to thaw until it does.
 *
 * @returns how many file systems were thawed; undefined where that is not known.
 * @throws LacunaError ERR_MACHINE_FROZEN
 */
export async function thawFor(
  agent: Pick<FreezingAgent, 'name' | 'thaw'>,
  limitMs: number,
): Promise<number | undefined> {
  const end = performance.now() + limitMs;
  for (let isFirst = true; ; isFirst = false) {
    try {
      const count = await agent.thaw({ timeoutMs: TRY_MS });
      // One that was not answered may have thawed some.
      return isFirst ? count : undefined;
    } catch (cause) {
      const { code, errno } = cause as LacunaError;
      // An agent that may not freeze may not thaw either, and has nothing to.
      if (errno === 'CommandNotFound') return undefined;
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
