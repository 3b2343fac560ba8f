import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { fromWire } from '../../errors/index.js';
import { GuestAgent, type Monitor, type QmpAddress } from '../../qmp/index.js';
import { Serial } from '../../util/index.js';
import type { Answer, Order } from './messages.js';
import { mayBeFrozen } from './thaw.js';

const PROGRAM = '#dist/qemu/guard/guard-process.js';

/** A guest agent behind a process that thaws whatever becomes of this one. */
export class AgentGuard {
  readonly #name: string;
  readonly #child: ChildProcess;
  readonly #turn = new Serial();
  #exit: Error | undefined;
  #answered: (() => void) | undefined;
  #answer: Answer | undefined;

  /**
   * Starts the process, which connects to the agent.
   *
   * @throws what `GuestAgent.connect` throws
   */
  static async start(
    address: QmpAddress,
    monitor: Monitor,
    signal?: AbortSignal,
  ): Promise<AgentGuard> {
    await GuestAgent.checkPresence(address, monitor, signal);
    const guard = new AgentGuard(address);
    try {
      await guard.#tell({ order: 'connect', address });
    } catch (error) {
      await guard.close();
      throw error;
    }
    return guard;
  }

  private constructor(address: QmpAddress) {
    this.#name = 'path' in address ? address.path : `${address.host}:${address.port}`;
    // Of a session of its own: what a terminal sends to this process is not for the guard.
    this.#child = fork(fileURLToPath(import.meta.resolve(PROGRAM)), {
      detached: true,
      execArgv: [],
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    });
    this.#child.on('message', (answer: Answer) => this.#hear(answer));
    this.#child.on('error', (error) => this.#ended(error));
    this.#child.on('exit', (code, by) => this.#ended(new Error(`it ended with ${by ?? code}`)));
  }

  /**
   * Freezes, which may take `timeoutMs`. The guest is thawed `deadlineMs` later, whatever happens.
   *
   * @throws as `GuestAgent.freeze`
   */
  async freeze(timeoutMs: number, deadlineMs: number): Promise<void> {
    await this.#tell({ order: 'freeze', timeoutMs, deadlineMs });
  }

  /**
   * Thaws; safe where nothing is frozen.
   *
   * @returns whether the guest was frozen until now: false where the deadline had passed before.
   * @throws LacunaError ERR_MACHINE_FROZEN
   */
  async thaw(): Promise<boolean> {
    const { wasLate } = await this.#tell({ order: 'thaw' });
    return wasLate !== true;
  }

  /** Ends the process, which thaws before where it must. */
  async close(): Promise<void> {
    if (this.#child.connected) this.#child.disconnect();
    this.#child.unref();
  }

  #tell(order: Order): Promise<Answer> {
    return this.#turn.run(async () => {
      await new Promise<void>((resolve) => {
        this.#answered = resolve;
        this.#answer = undefined;
        if (this.#exit !== undefined || !this.#child.connected) resolve();
        else this.#child.send(order, (error) => error && this.#ended(error));
      });
      const { failure } = this.#heard(order);
      if (failure !== undefined) throw fromWire(failure);
      return this.#answer!;
    });
  }

  #heard(order: Order): Answer {
    if (this.#answer !== undefined) return this.#answer;
    const cause = this.#exit ?? new Error('it is gone');
    if (order.order === 'thaw') throw mayBeFrozen(this.#name, cause);
    throw new Error(`the process that guards the guest agent does not answer: ${cause.message}`);
  }

  #hear(answer: Answer): void {
    this.#answer = answer;
    this.#answered?.();
  }

  #ended(error: Error): void {
    this.#exit ??= error;
    this.#answered?.();
  }
}
