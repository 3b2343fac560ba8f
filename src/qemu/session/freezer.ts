import { LacunaError } from '../../errors/index.js';
import type { AgentGuard } from '../guard/index.js';
import type { FreezePolicy } from './options.js';

const FREEZE_MS = 10_000;
const DEADLINE_MS = 10_000;

export interface FreezerOptions {
  readonly policy: FreezePolicy;
  readonly timeoutMs?: number | undefined;
  readonly deadlineMs?: number | undefined;
  /** Called before the guest is told to freeze, and when it has thawed. */
  readonly note: (mayBeFrozen: boolean) => Promise<void>;
}

/** Freezes the guest for one moment, and thaws it on every path out, that of our own death included. */
export class Freezer {
  readonly warnings: string[] = [];
  /** Whether the moment was one with frozen file systems. */
  hasFrozen = false;
  readonly #options: FreezerOptions;
  #agent: AgentGuard | undefined;

  /**
   * Connects the agent with `start`, undefined where there is none, before anything is done for which an absent one would be too late.
   *
   * @throws what `GuestAgent.connect` throws, where a freeze is required.
   */
  static async prepare(
    start: (() => Promise<AgentGuard>) | undefined,
    options: FreezerOptions,
  ): Promise<Freezer> {
    const freezer = new Freezer(options);
    if (options.policy === 'off') return freezer;
    if (start === undefined) {
      if (options.policy === 'try') return freezer;
      throw new TypeError('a freeze is required, and the machine was connected without an agent');
    }
    try {
      freezer.#agent = await start();
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
    const wasInTime = await this.#thaw(agent);
    if (this.hasFrozen && !wasInTime) this.#warn(notFrozen(TOO_LATE));
    return result;
  }

  async close(): Promise<void> {
    await this.#agent?.close();
  }

  async #freeze(agent: AgentGuard): Promise<void> {
    const { timeoutMs = FREEZE_MS, deadlineMs = DEADLINE_MS } = this.#options;
    try {
      const count = await agent.freeze(timeoutMs, deadlineMs);
      this.hasFrozen = count > 0;
      if (count === 0) throw notFrozen('the guest has no file system that can be frozen');
    } catch (error) {
      this.#warn(error);
    }
  }

  #warn(error: unknown): void {
    const isRequired = this.#options.policy === 'require';
    const isOurs = error instanceof LacunaError && error.code !== 'ERR_ABORTED';
    if (isRequired || !isOurs) throw error;
    this.hasFrozen = false;
    this.warnings.push(
      `the file systems of the guest were not frozen, so this is a backup as after a power cut: ${error.message}`,
    );
  }

  async #thaw(agent: AgentGuard): Promise<boolean> {
    const wasInTime = await agent.thaw();
    await this.#options.note(false);
    return wasInTime;
  }
}

const TOO_LATE =
  'they thawed before, or while, the point in time was made: it took longer than the guest may be frozen (freezeDeadlineMs), or the guest thaws by itself';

function notFrozen(why: string): LacunaError {
  return new LacunaError('ERR_MACHINE_NOT_FROZEN', why, { retryable: true });
}
