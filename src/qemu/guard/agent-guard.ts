import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { fromWire, LacunaError } from '../../errors/index.js';
import { ownFile, Serial, Watchdog } from '../../util/index.js';
import { connectAgent } from './connect-agent.js';
import type { AgentAddress, Answer, Order, Ping, Taken } from './messages.js';
import { mayBeFrozen, thawFor } from './thaw.js';

const PROGRAM = 'qemu/guard/guard-process.js';

/** When the process is gone, this one tries to thaw for so long. */
const THAW_MS = 60_000;
/** A process that is told something, and says nothing for so long, is stopped: it is killed. */
const SILENT_MS = 5000;
/** The same for one that has to start first; nothing is frozen yet. */
const START_MS = 60_000;
/** While an answer is outstanding, the process is asked so often whether it runs. */
const PING_MS = 1000;

/** A guest agent behind a process that thaws whatever becomes of this one. */
export class AgentGuard {
  readonly #name: string;
  readonly #address: AgentAddress;
  readonly #child: ChildProcess;
  readonly #turn = new Serial();
  #exit: Error | undefined;
  #answered: (() => void) | undefined;
  #answer: Answer | undefined;
  /** Counts the time in which the process says nothing. */
  #silence: Watchdog | undefined;
  /** File systems. */
  #frozen = 0;

  /**
   * Starts the process, which connects to the agent; the caller has seen that there is one.
   *
   * @throws what `GuestAgent.connect` throws
   */
  static async start(address: AgentAddress): Promise<AgentGuard> {
    const guard = new AgentGuard(address);
    try {
      await guard.#tell({ order: 'connect', address });
    } catch (error) {
      await guard.close();
      throw error;
    }
    return guard;
  }

  private constructor(address: AgentAddress) {
    this.#address = address;
    this.#name = nameOf(address);
    // Of a session of its own: what a terminal sends to this process is not for the guard.
    this.#child = fork(fileURLToPath(ownFile(PROGRAM)), {
      detached: true,
      execArgv: [],
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    });
    this.#child.on('message', (said: Answer | Taken) => this.#hear(said));
    this.#child.on('error', (error) => this.#ended(error));
    this.#child.on('exit', (code, by) => this.#ended(new Error(`it ended with ${by ?? code}`)));
  }

  /**
   * Freezes, which may take `timeoutMs`. The guest is thawed `deadlineMs` later, whatever happens.
   *
   * @returns how many file systems are frozen.
   * @throws as `GuestAgent.freeze`
   */
  async freeze(timeoutMs: number, deadlineMs: number): Promise<number> {
    try {
      const { count = 0 } = await this.#tell({ order: 'freeze', timeoutMs, deadlineMs });
      this.#frozen = count;
      return count;
    } catch (error) {
      // It may have frozen, and nobody watches the deadline any more.
      if (this.#isGone) await this.#thawAlone();
      throw error;
    }
  }

  /**
   * Thaws; safe where nothing is frozen.
   *
   * @returns whether the guest is known to have been frozen until now: not where the deadline had passed before, or where
   *   fewer file systems were thawed than frozen, as some guests thaw by themselves.
   * @throws LacunaError ERR_MACHINE_FROZEN
   */
  async thaw(): Promise<boolean> {
    if (this.#isGone) return await this.#thawAlone();
    let answer: Answer;
    try {
      answer = await this.#tell({ order: 'thaw' });
    } catch (error) {
      if (this.#answer !== undefined) throw error;
      return await this.#thawAlone();
    }
    const { wasLate, count = this.#frozen } = answer;
    return wasLate !== true && count >= this.#frozen;
  }

  get #isGone(): boolean {
    return this.#exit !== undefined || !this.#child.connected;
  }

  /** The process was killed, so that its connection to the agent is free, and nobody knows when it would have thawed. */
  async #thawAlone(): Promise<boolean> {
    try {
      await using agent = await connectAgent(this.#address);
      await thawFor(agent, THAW_MS);
      return false;
    } catch (cause) {
      throw mayBeFrozen(this.#name, cause);
    }
  }

  /** Ends the process, which thaws before where it must. */
  async close(): Promise<void> {
    if (this.#child.connected) this.#child.disconnect();
    this.#child.unref();
  }

  #tell(order: Order): Promise<Answer> {
    return this.#turn.run(async () => {
      await this.#waitFor(order);
      const { failure } = this.#heard();
      if (failure !== undefined) throw fromWire(failure);
      return this.#answer!;
    });
  }

  /** Until the process has answered, or is gone. One that is stopped (SIGSTOP) would hold a frozen guest: it is killed. */
  async #waitFor(order: Order): Promise<void> {
    const limitMs = order.order === 'connect' ? START_MS : SILENT_MS;
    this.#silence = new Watchdog(limitMs, () => {
      this.#exit ??= new Error(`it said nothing for ${limitMs / 1000} s, and was killed`);
      this.#child.kill('SIGKILL');
    });
    this.#silence.watch();
    const pings = setInterval(() => this.#send({ order: 'ping' }), PING_MS);
    await new Promise<void>((resolve) => {
      this.#answered = resolve;
      this.#answer = undefined;
      if (this.#isGone) resolve();
      else this.#send(order);
    });
    clearInterval(pings);
    this.#silence.stop();
  }

  #send(what: Order | Ping): void {
    if (this.#child.connected) this.#child.send(what, (error) => error && this.#ended(error));
  }

  #heard(): Answer {
    if (this.#answer !== undefined) return this.#answer;
    const cause = this.#exit ?? new Error('it is gone');
    throw new LacunaError(
      'ERR_MACHINE_NOT_FROZEN',
      `the process that guards the guest agent does not answer: ${cause.message}`,
      { device: this.#name, cause, retryable: true },
    );
  }

  #hear(said: Answer | Taken): void {
    this.#silence?.progress();
    if ('taken' in said) return;
    this.#answer = said;
    this.#answered?.();
  }

  #ended(error: Error): void {
    this.#exit ??= error;
    this.#answered?.();
  }
}

function nameOf(address: AgentAddress): string {
  if ('uuid' in address) return `the guest agent of ${address.uuid}`;
  return 'path' in address ? address.path : `${address.host}:${address.port}`;
}
