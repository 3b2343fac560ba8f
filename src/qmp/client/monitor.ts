import { LacunaError } from '../../errors/index.js';
import { optionCheck, Serial } from '../../util/index.js';
import type { QmpEvent, QmpVersion } from '../wire/index.js';
import { checkAddress, type QmpAddress } from './address.js';
import { type QmpAnswers, readAnswer } from './answers.js';
import { EventStream, type ReceivedEvent } from './event-stream.js';
import { disconnected, locate } from './failures.js';
import { checkEvent, type QmpEventData, type TypedEvent } from './happenings.js';
import type { QmpCommandOptions } from './pending-commands.js';
import { type QmpNeeds, QmpSchema } from './schema.js';
import { Session } from './session.js';

/** How a monitor is connected. */
export interface MonitorOptions {
  /** Milliseconds for connecting, for the greeting, and for agreeing on capabilities, each. Default 10,000. */
  readonly timeoutMs?: number | undefined;
  /** Fires to end connecting; afterwards it has no effect. */
  readonly signal?: AbortSignal | undefined;
}

/** How a command is executed. */
export interface ExecuteOptions extends QmpCommandOptions {
  /**
   * Carry it out beside others that are under way, where QEMU offers that for this command (`exec-oob`). Default false.
   */
  readonly outOfBand?: boolean | undefined;
}

/** How a command is executed that must not be carried out twice. */
export interface ExecuteOnceOptions extends QmpCommandOptions {
  /** Asks QEMU whether the command has been carried out. It is called over a new connection. */
  readonly isDone: (monitor: Monitor) => Promise<boolean>;
  /** Milliseconds for which a lost connection is made again. Default 30,000. */
  readonly reconnectMs?: number | undefined;
}

/** How events are received. */
export interface EventOptions {
  /** Events that a slow reader may have waiting; what comes beyond is dropped, and counted. Default 1000. */
  readonly limit?: number | undefined;
}

const CONNECT_MS = 10_000;
const RECONNECT_MS = 30_000;
const RECONNECT_PAUSE_MS = 200;
/** A command that ends the connection each time may be what ends it. */
const MOST_ATTEMPTS = 3;
const WAITING_EVENTS = 1000;

const checkOptions = optionCheck<MonitorOptions>({ timeoutMs: 'any', signal: 'signal' });
const checkExecute = optionCheck<ExecuteOptions>({
  timeoutMs: 'any',
  signal: 'signal',
  outOfBand: 'flag',
});
const checkOnce = optionCheck<ExecuteOnceOptions>({
  timeoutMs: 'any',
  signal: 'signal',
  isDone: { needed: 'a function that asks QEMU whether the command has been carried out' },
  reconnectMs: 'any',
});
const checkEvents = optionCheck<EventOptions>({ limit: 'any' });

/**
 * A QMP connection to a running QEMU, or to a qemu-storage-daemon:
 *
 *     const monitor = await Monitor.connect({ path: '/run/vm.qmp' });
 *     const jobs = await monitor.execute('query-jobs');
 *
 * QEMU serves one client of a monitor at a time. A monitor that waits for nothing does not keep the process alive.
 */
export class Monitor implements AsyncDisposable {
  /** How messages name it. */
  readonly name: string;
  readonly #address: QmpAddress;
  readonly #streams = new Set<EventStream>();
  readonly #reconnecting = new Serial();
  #session: Session;
  #schema: Promise<QmpSchema> | undefined;
  #isClosed = false;

  /**
   * Connects, waits for the greeting, and enables what QEMU offers.
   *
   * @throws TypeError or RangeError for an address that cannot be one. LacunaError ERR_QMP_DISCONNECTED where nobody
   *   listens; ERR_QMP_BUSY where another client uses the monitor; ERR_QMP_PROTOCOL; ERR_QMP_UNANSWERED; ERR_ABORTED.
   */
  static async connect(address: QmpAddress, options: MonitorOptions = {}): Promise<Monitor> {
    checkAddress('Monitor.connect', address);
    checkOptions('Monitor.connect', options);
    // Events may come before there is a monitor to take them.
    let monitor: Monitor | undefined;
    const session = await Session.open(
      address,
      eventsOf(() => monitor),
      {
        timeoutMs: options.timeoutMs ?? CONNECT_MS,
        signal: options.signal,
      },
    );
    monitor = new Monitor(address, session);
    return monitor;
  }

  private constructor(address: QmpAddress, session: Session) {
    this.name = session.name;
    this.#address = address;
    this.#session = session;
  }

  /** The version of QEMU. */
  get version(): QmpVersion {
    return this.#session.version;
  }

  /** What the monitor offers, such as `oob`. */
  get capabilities(): readonly string[] {
    return this.#session.capabilities;
  }

  /** Whether the connection stands, as far as is known. */
  get isConnected(): boolean {
    return this.#session.failure === undefined;
  }

  /**
   * Executes a command. The answers of those in {@link QmpAnswers} are checked, and have types.
   *
   * @throws LacunaError ERR_QMP_COMMAND where QEMU refuses it: `errno` is the class of its error, `description` its
   *   words. ERR_QMP_DISCONNECTED where the connection was lost before. ERR_QMP_UNANSWERED where the command was sent, and the
   *   connection was lost or the time was over: it may have been carried out. ERR_QMP_PROTOCOL; ERR_ABORTED.
   */
  execute<K extends keyof QmpAnswers>(
    command: K,
    args?: object,
    options?: ExecuteOptions,
  ): Promise<QmpAnswers[K]>;
  execute(command: string, args?: object, options?: ExecuteOptions): Promise<unknown>;
  async execute(command: string, args?: object, options: ExecuteOptions = {}): Promise<unknown> {
    checkExecute('Monitor.execute', options);
    const { outOfBand = false } = options;
    if (outOfBand && !this.capabilities.includes('oob')) {
      throw new LacunaError(
        'ERR_QMP_UNSUPPORTED',
        `${this.name} carries nothing out of band: leave out outOfBand`,
        { device: this.name },
      );
    }
    const answer = await this.#session.execute(command, args, options, outOfBand);
    try {
      return readAnswer(command, answer);
    } catch (error) {
      throw locate(error as LacunaError, this.name);
    }
  }

  /**
   * Executes a command that must not be carried out twice. When the connection is lost before the answer, it is made
   * again, and `isDone` looks whether the command was carried out; only if not it is sent again. So it may be done
   * although no answer came, and then nothing is returned.
   *
   * @throws as {@link execute}; ERR_QMP_UNANSWERED where the time was over, or where the connection cannot be made again.
   */
  async executeOnce(command: string, args: object, options: ExecuteOnceOptions): Promise<void> {
    checkOnce('Monitor.executeOnce', options);
    const { isDone, reconnectMs, timeoutMs, signal } = options;
    for (let attempt = 1; ; attempt++) {
      try {
        await this.execute(command, args, { timeoutMs, signal });
        return;
      } catch (error) {
        // While the connection stands it may still be carried out; nobody can look then.
        if (!isLoss(error) || this.isConnected || attempt === MOST_ATTEMPTS) throw error;
        await this.#reconnectOr(error as LacunaError, { timeoutMs: reconnectMs, signal });
        if (await isDone(this)) return;
      }
    }
  }

  /**
   * The events of these names, or all, from now on. Streams of the same monitor do not take events from one another.
   *
   *     for await (const { event, data } of monitor.events(['JOB_STATUS_CHANGE'])) ...
   *
   * @throws RangeError for a limit below 1.
   */
  events<K extends keyof QmpEventData>(
    names: readonly K[],
    options?: EventOptions,
  ): EventStream<TypedEvent<K>>;
  events(names?: readonly string[], options?: EventOptions): EventStream;
  events(names: readonly string[] = [], options: EventOptions = {}): EventStream {
    checkEvents('Monitor.events', options);
    const { limit = WAITING_EVENTS } = options;
    if (!Number.isInteger(limit) || limit < 1) {
      throw new RangeError(`Monitor.events: limit must be a whole number above 0, not ${limit}`);
    }
    const stream = new EventStream<ReceivedEvent>(names, limit, (one) => this.#streams.delete(one));
    const { failure } = this.#session;
    if (failure !== undefined) stream.fail(failure);
    else this.#streams.add(stream);
    return stream;
  }

  /** QEMU's description of its own commands; asked once. */
  schema(options: QmpCommandOptions = {}): Promise<QmpSchema> {
    this.#schema ??= this.#askSchema(options);
    return this.#schema;
  }

  /**
   * Throws unless QEMU has all of these commands and arguments.
   *
   * @throws LacunaError ERR_QMP_UNSUPPORTED that names what is missing.
   */
  async require(needs: QmpNeeds, options: QmpCommandOptions = {}): Promise<void> {
    const { major, minor, micro } = this.version;
    const schema = await this.schema(options);
    schema.require(this.name, `${major}.${minor}.${micro}`, needs);
  }

  /**
   * Connects again after the connection was lost, and tries for `timeoutMs`. Does nothing while the connection stands. What
   * was sent before and not answered may have been carried out: ask before anything is sent again. Streams of events have
   * ended with the connection.
   *
   * @throws what {@link connect} throws last.
   */
  reconnect({ timeoutMs = RECONNECT_MS, signal }: MonitorOptions = {}): Promise<void> {
    return this.#reconnecting.run(async () => {
      if (this.#isClosed) throw this.#session.failure;
      if (this.isConnected) return;
      const session = await this.#openPatiently(timeoutMs, signal);
      this.#schema = undefined;
      this.#session = session;
    });
  }

  /** Ends the connection; commands that wait fail with ERR_QMP_UNANSWERED. Closing again is harmless. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#session.close();
    // A connection that is being made belongs to nobody.
    await this.#reconnecting.run(() => this.#session.close());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #askSchema(options: QmpCommandOptions): Promise<QmpSchema> {
    try {
      return new QmpSchema(await this.execute('query-qmp-schema', undefined, options));
    } catch (error) {
      this.#schema = undefined;
      throw error instanceof LacunaError ? locate(error, this.name) : error;
    }
  }

  async #reconnectOr(loss: LacunaError, options: MonitorOptions): Promise<void> {
    try {
      await this.reconnect(options);
    } catch (error) {
      if (error instanceof LacunaError && error.code === 'ERR_ABORTED') throw error;
      throw loss;
    }
  }

  async #openPatiently(limitMs: number, signal: AbortSignal | undefined): Promise<Session> {
    const end = performance.now() + limitMs;
    for (;;) {
      try {
        const timeoutMs = Math.max(end - performance.now(), RECONNECT_PAUSE_MS);
        return await Session.open(
          this.#address,
          eventsOf(() => this),
          { timeoutMs, signal },
        );
      } catch (error) {
        const mayPass = isLoss(error) || (error as LacunaError).code === 'ERR_QMP_BUSY';
        if (!mayPass || this.#isClosed || performance.now() >= end) throw error;
        await new Promise((resolve) => setTimeout(resolve, RECONNECT_PAUSE_MS));
      }
    }
  }

  /** @internal */
  deliver(event: QmpEvent): void {
    checkEvent(event.event, event.data);
    for (const stream of this.#streams) stream.push(event);
  }

  /** @internal */
  lost(failure: LacunaError): void {
    for (const stream of this.#streams) stream.fail(failure);
    this.#streams.clear();
  }
}

function eventsOf(monitor: () => Monitor | undefined) {
  return {
    event: (event: QmpEvent) => monitor()?.deliver(event),
    closed: (failure: LacunaError) => monitor()?.lost(disconnectedBy(failure)),
  };
}

/** Whatever ended the connection, a stream of events has ended with it. */
function disconnectedBy(failure: LacunaError): LacunaError {
  if (failure.code === 'ERR_QMP_DISCONNECTED') return failure;
  return disconnected(failure.message, failure);
}

function isLoss(error: unknown): boolean {
  if (!(error instanceof LacunaError)) return false;
  return error.code === 'ERR_QMP_UNANSWERED' || error.code === 'ERR_QMP_DISCONNECTED';
}
