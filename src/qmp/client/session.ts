import { abortedError, LacunaError } from '../../errors/index.js';
import { afterWaiting } from '../../util/index.js';
import {
  commandText,
  type JsonObject,
  messageOf,
  protocolError,
  type QmpEvent,
  type QmpVersion,
} from '../wire/index.js';
import { nameOf, type QmpAddress } from './address.js';
import { disconnected, locate } from './failures.js';
import { Link } from './link.js';
import { PendingCommands, type QmpCommandOptions } from './pending-commands.js';

export interface SessionEvents {
  event(event: QmpEvent): void;
  closed(failure: LacunaError): void;
}

export interface SessionOptions {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** One connection to a monitor, from its greeting to its end. */
export class Session {
  readonly name: string;
  version: QmpVersion = { major: 0, minor: 0, micro: 0, package: '' };
  capabilities: readonly string[] = [];
  failure: LacunaError | undefined;
  readonly #events: SessionEvents;
  readonly #pending: PendingCommands;
  #link: Link | undefined;
  #greeted: (() => void) | undefined;
  #greetingFailed: ((failure: LacunaError) => void) | undefined;

  /** @throws what `Monitor.connect` throws */
  static async open(
    address: QmpAddress,
    events: SessionEvents,
    options: SessionOptions,
  ): Promise<Session> {
    const session = new Session(`monitor ${nameOf(address)}`, events);
    try {
      await session.#connect(address, options);
      await session.#negotiate(options);
    } catch (error) {
      session.#link?.destroy(disconnected('it was given up'));
      throw error instanceof LacunaError ? locate(error, session.name) : error;
    }
    return session;
  }

  private constructor(name: string, events: SessionEvents) {
    this.name = name;
    this.#events = events;
    this.#pending = new PendingCommands(name);
  }

  execute(
    command: string,
    args: object | undefined,
    options: QmpCommandOptions,
    outOfBand = false,
  ): Promise<unknown> {
    const [link, failure] = [this.#link, this.failure];
    if (failure !== undefined || link === undefined) return Promise.reject(failure);
    const answer = this.#pending.add(
      command,
      (id) => link.send(commandText(command, args, id, outOfBand)),
      options,
    );
    link.keepsProcess(true);
    const settled = () => link.keepsProcess(this.#pending.size > 0);
    answer.then(settled, settled);
    return answer;
  }

  async close(): Promise<void> {
    await this.#link?.close(disconnected('the monitor was closed here'));
  }

  async #connect(address: QmpAddress, options: SessionOptions): Promise<void> {
    const greeted = new Promise<void>((resolve, reject) => {
      this.#greeted = resolve;
      this.#greetingFailed = reject;
    });
    greeted.catch(() => {});
    this.#link = await Link.open(
      address,
      { object: (value) => this.#received(value), closed: (failure) => this.#closed(failure) },
      options,
    );
    // A second client of a monitor is let in and gets no greeting. QEMU greets the first one once it has time to.
    const stopWaiting = afterWaiting(options.timeoutMs, () =>
      this.#greetingFailed?.(busy(options.timeoutMs)),
    );
    const abort = () => this.#link?.destroy(abortedError(options.signal));
    options.signal?.addEventListener('abort', abort);
    try {
      await greeted;
    } finally {
      stopWaiting();
      options.signal?.removeEventListener('abort', abort);
      this.#greeted = undefined;
    }
  }

  async #negotiate({ timeoutMs, signal }: SessionOptions): Promise<void> {
    const enable = this.capabilities.filter((name) => name === 'oob');
    await this.execute('qmp_capabilities', { enable }, { timeoutMs, signal });
  }

  #received(object: JsonObject): void {
    const message = messageOf(object);
    if (message.type === 'greeting') {
      if (this.#greeted === undefined) throw protocolError('it greeted twice');
      this.version = message.version;
      this.capabilities = message.capabilities;
      this.#greeted();
      this.#greeted = undefined;
      return;
    }
    if (this.#greeted !== undefined) throw protocolError('it spoke before it greeted');
    if (message.type === 'event') {
      this.#events.event(message.event);
      return;
    }
    const isKnown =
      message.type === 'return'
        ? this.#pending.answered(message.id, message.value)
        : this.#pending.refused(message.id, message);
    if (!isKnown) {
      throw protocolError(
        `it answered a command that was not sent (id ${JSON.stringify(message.id)})`,
      );
    }
  }

  #closed(failure: LacunaError): void {
    this.failure = locate(failure, this.name);
    this.#greetingFailed?.(failure);
    this.#pending.lost(failure);
    this.#events.closed(this.failure);
  }
}

function busy(timeoutMs: number): LacunaError {
  return new LacunaError(
    'ERR_QMP_BUSY',
    `it accepts the connection, and does not greet within ${timeoutMs} ms: another client uses it; end that one, or give the machine a second monitor (-qmp unix:PATH,server=on,wait=off)`,
    { retryable: true },
  );
}
