import { setTimeout as sleep } from 'node:timers/promises';
import { LacunaError } from '../../errors/index.js';
import { GuestAgent, type Monitor, type QmpAddress } from '../../qmp/index.js';
import type { FreezePolicy } from './options.js';

const FREEZE_MS = 10_000;
/** Tries to thaw go on for so long. */
const THAW_MS = 60_000;
const THAW_TRY_MS = 5000;
const PAUSE_MS = 200;

export interface FreezerOptions {
  readonly policy: FreezePolicy;
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called before the guest is told to freeze, and when it has thawed. */
  readonly note: (mayBeFrozen: boolean) => Promise<void>;
}

/** Freezes the guest for one moment, and thaws it on every path out. */
export class Freezer {
  readonly warnings: string[] = [];
  /** Whether the moment was one with frozen file systems. */
  hasFrozen = false;
  readonly #options: FreezerOptions;
  #agent: GuestAgent | undefined;

  /**
   * Connects the agent, before anything is done for which an absent one would be too late.
   *
   * @throws what `GuestAgent.connect` throws, where a freeze is required.
   */
  static async prepare(
    address: QmpAddress | undefined,
    monitor: Monitor,
    options: FreezerOptions,
  ): Promise<Freezer> {
    const freezer = new Freezer(options);
    if (options.policy === 'off') return freezer;
    if (address === undefined) {
      if (options.policy === 'try') return freezer;
      throw new TypeError('a freeze is required, and the machine was connected without an agent');
    }
    try {
      const { signal } = options;
      freezer.#agent = await GuestAgent.connect(address, { monitor, signal });
    } catch (error) {
      freezer.#warn(error);
    }
    return freezer;
  }

  private constructor(options: FreezerOptions) {
    this.#options = options;
  }

  /** Does `work` while the guest is frozen, or not frozen, as the policy says. */
  async during<T>(work: () => Promise<T>): Promise<T> {
    const agent = this.#agent;
    if (agent === undefined) return await work();
    await this.#options.note(true);
    let result: T;
    try {
      await this.#freeze(agent);
      result = await work();
    } catch (error) {
      // What failed matters more, unless the guest stands still now.
      await this.#thaw(agent);
      throw error;
    }
    await this.#thaw(agent);
    return result;
  }

  async close(): Promise<void> {
    await this.#agent?.close();
  }

  async #freeze(agent: GuestAgent): Promise<void> {
    const { timeoutMs = FREEZE_MS, signal } = this.#options;
    try {
      await agent.freeze({ timeoutMs, signal });
      this.hasFrozen = true;
    } catch (error) {
      this.#warn(error);
    }
  }

  #warn(error: unknown): void {
    const isRequired = this.#options.policy === 'require';
    const isOurs = error instanceof LacunaError && error.code !== 'ERR_ABORTED';
    if (isRequired || !isOurs) throw error;
    this.warnings.push(
      `the file systems of the guest were not frozen, so this is a backup as after a power cut: ${error.message}`,
    );
  }

  async #thaw(agent: GuestAgent): Promise<void> {
    await thawFor(agent, THAW_MS);
    await this.#options.note(false);
  }
}

/**
 * Tells an agent to thaw until it does.
 *
 * @throws LacunaError ERR_MACHINE_FROZEN
 */
export async function thawFor(agent: GuestAgent, limitMs: number): Promise<void> {
  const end = performance.now() + limitMs;
  for (;;) {
    try {
      await agent.thaw({ timeoutMs: THAW_TRY_MS });
      return;
    } catch (cause) {
      // An agent that may not freeze may not thaw either, and has nothing to.
      if ((cause as LacunaError).errno === 'CommandNotFound') return;
      if (performance.now() < end && (cause as LacunaError).code !== 'ERR_QMP_DISCONNECTED') {
        await sleep(PAUSE_MS);
        continue;
      }
      throw new LacunaError(
        'ERR_MACHINE_FROZEN',
        `${agent.name}: the guest was told to freeze, and does not confirm that it has thawed: look into the guest at once`,
        { device: agent.name, cause },
      );
    }
  }
}
