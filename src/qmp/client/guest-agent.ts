import { LacunaError } from '../../errors/index.js';
import { optionCheck, Serial } from '../../util/index.js';
import { protocolError } from '../wire/index.js';
import { checkAddress, type QmpAddress } from './address.js';
import { AgentLine } from './agent-line.js';
import { locate } from './failures.js';
import type { Monitor } from './monitor.js';

/** How a guest agent is connected. */
export interface GuestAgentOptions {
  /**
   * The monitor of the same machine. With it, it is looked first whether anybody in the guest has the agent's port open, so
   * that nothing is sent to an agent that is not there, which would hear it later.
   */
  readonly monitor?: Monitor | undefined;
  /** Milliseconds for connecting, and for each time that the agent has to show that it is there. Default 5000. */
  readonly timeoutMs?: number | undefined;
  /** Fires to end connecting. */
  readonly signal?: AbortSignal | undefined;
}

/** How a command of a guest agent is asked. */
export interface AgentCommandOptions {
  /** Milliseconds until it counts as unanswered. Default 10,000. */
  readonly timeoutMs?: number | undefined;
  /** Fires to end waiting; the agent may carry the command out all the same. */
  readonly signal?: AbortSignal | undefined;
}

/** How file systems are frozen. */
export interface FreezeOptions extends AgentCommandOptions {
  /** Only the file systems that are mounted here in the guest. Default: all. */
  readonly mountpoints?: readonly string[] | undefined;
}

/** Whether the file systems of a guest are frozen. */
export type FreezeStatus = 'thawed' | 'frozen';

const SYNC_MS = 5000;
const COMMAND_MS = 10_000;

const checkOptions = optionCheck<GuestAgentOptions>({
  monitor: 'any',
  timeoutMs: 'any',
  signal: 'signal',
});
const checkCommand = optionCheck<AgentCommandOptions>({ timeoutMs: 'any', signal: 'signal' });
const checkFreeze = optionCheck<FreezeOptions>({
  timeoutMs: 'any',
  signal: 'signal',
  mountpoints: 'any',
});

/**
 * The agent inside a guest (qemu-guest-agent), which freezes and thaws its file systems. It serves one client at a time, and
 * a second one waits without being told; nothing here waits longer than its limit.
 */
export class GuestAgent implements AsyncDisposable {
  /** How messages name it. */
  readonly name: string;
  readonly #line: AgentLine;
  readonly #syncMs: number;
  readonly #turn = new Serial();

  /**
   * Connects, and waits until the agent has shown that it is there.
   *
   * @throws TypeError or RangeError for an address that cannot be one. LacunaError ERR_AGENT_ABSENT where no agent
   *   answers; ERR_QMP_DISCONNECTED where there is no socket; ERR_ABORTED; what the monitor throws.
   */
  static async connect(address: QmpAddress, options: GuestAgentOptions = {}): Promise<GuestAgent> {
    checkAddress('GuestAgent.connect', address);
    checkOptions('GuestAgent.connect', options);
    const { monitor, timeoutMs = SYNC_MS, signal } = options;
    if (monitor !== undefined) await GuestAgent.checkPresence(address, monitor, signal);
    const line = await AgentLine.open(address, { timeoutMs, signal });
    try {
      await line.sync({ timeoutMs, signal });
    } catch (error) {
      await line.close();
      throw error;
    }
    return new GuestAgent(line, timeoutMs);
  }

  /**
   * Asks QEMU, which offers an agent's socket, whether anybody in the guest has the other end open. Sockets that it does not
   * know are taken to be open.
   *
   * @throws LacunaError ERR_AGENT_ABSENT; what the monitor throws.
   */
  static async checkPresence(
    address: QmpAddress,
    monitor: Monitor,
    signal?: AbortSignal,
  ): Promise<void> {
    checkAddress('GuestAgent.checkPresence', address);
    const devices = await monitor.execute('query-chardev', undefined, { signal });
    const ours = devices.filter(({ filename }) => leadsTo(filename, address));
    if (ours.length === 0 || ours.some((device) => device['frontend-open'])) return;
    throw new LacunaError(
      'ERR_AGENT_ABSENT',
      `${monitor.name}: nobody in the guest has opened the port of the agent ("${ours[0].label}"); start qemu-guest-agent in the guest`,
      { device: monitor.name, retryable: true },
    );
  }

  private constructor(line: AgentLine, syncMs: number) {
    this.name = line.name;
    this.#line = line;
    this.#syncMs = syncMs;
  }

  /**
   * Asks a command of the agent; one at a time, in the order of the calls.
   *
   * @throws LacunaError ERR_QMP_COMMAND where it refuses; ERR_QMP_UNANSWERED where no answer came; ERR_AGENT_ABSENT
   *   where it does not answer any more; ERR_QMP_DISCONNECTED; ERR_QMP_PROTOCOL; ERR_ABORTED.
   */
  execute(command: string, args?: object, options: AgentCommandOptions = {}): Promise<unknown> {
    checkCommand('GuestAgent.execute', options);
    const { timeoutMs = COMMAND_MS, signal } = options;
    return this.#turn.run(() =>
      this.#line.ask(command, args, { timeoutMs, signal }, { timeoutMs: this.#syncMs, signal }),
    );
  }

  /** Resolves when the agent has answered. */
  async ping(options?: AgentCommandOptions): Promise<void> {
    await this.execute('guest-ping', undefined, options);
  }

  /**
   * Makes the answers of the agent fit what is asked again, after somebody else has used it.
   *
   * @throws LacunaError ERR_AGENT_ABSENT
   */
  sync(options: AgentCommandOptions = {}): Promise<void> {
    checkCommand('GuestAgent.sync', options);
    const { timeoutMs = this.#syncMs, signal } = options;
    return this.#turn.run(() => this.#line.sync({ timeoutMs, signal }));
  }

  /** Whether file systems are frozen, as far as the agent knows. */
  async status(options?: AgentCommandOptions): Promise<FreezeStatus> {
    const command = 'guest-fsfreeze-status';
    const status = await this.execute(command, undefined, options);
    if (status === 'thawed' || status === 'frozen') return status;
    throw locate(protocolError(`it answered "${command}" with another word`), this.name);
  }

  /**
   * Freezes the file systems of the guest: all that its programs have written is on its disks, and nothing more is written
   * until {@link thaw}. When this fails in any way, the guest is told to thaw before the error is thrown.
   *
   * @returns how many file systems are frozen.
   * @throws as {@link execute}
   */
  async freeze(options: FreezeOptions = {}): Promise<number> {
    checkFreeze('GuestAgent.freeze', options);
    const { mountpoints, ...limits } = options;
    const some = mountpoints !== undefined;
    const command = some ? 'guest-fsfreeze-freeze-list' : 'guest-fsfreeze-freeze';
    try {
      const args = some ? { mountpoints } : undefined;
      return this.#count(command, await this.execute(command, args, limits));
    } catch (error) {
      await this.#thawAfter(error);
      throw error;
    }
  }

  /**
   * Thaws the file systems of the guest. Safe to call when nothing is frozen.
   *
   * @returns how many file systems were thawed.
   * @throws as {@link execute}
   */
  async thaw(options?: AgentCommandOptions): Promise<number> {
    const command = 'guest-fsfreeze-thaw';
    return this.#count(command, await this.execute(command, undefined, options));
  }

  /** Ends the connection. Does not thaw. Closing again is harmless. */
  async close(): Promise<void> {
    await this.#line.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** The caller's signal and limit were for freezing. */
  async #thawAfter(failure: unknown): Promise<void> {
    // Nothing was sent, or the agent cannot freeze at all, or nobody can be told.
    const { code, errno } = failure as LacunaError;
    if (code === 'ERR_AGENT_ABSENT' || errno === 'CommandNotFound') return;
    if (this.#line.failure !== undefined) return;
    await this.thaw().catch(() => {});
  }

  #count(command: string, value: unknown): number {
    if (Number.isSafeInteger(value)) return value as number;
    throw locate(protocolError(`it answered "${command}" without a number`), this.name);
  }
}

/** As QEMU names a socket: `unix:PATH,server=on`, behind `disconnected:` while nobody is connected. */
function leadsTo(filename: string, address: QmpAddress): boolean {
  const place = filename.replace(/^disconnected:/, '').replace(/,.*$/s, '');
  if ('path' in address) return place === `unix:${address.path}`;
  return place.endsWith(`:${address.port}`);
}
