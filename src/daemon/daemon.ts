import type { LacunaError } from '../errors/index.js';
import { Graph } from '../graph/index.js';
import { type QmpListenAddress, QmpServer } from '../qmp/index.js';
import { afterWaiting, optionCheck } from '../util/index.js';
import {
  applyArguments,
  checkArguments,
  type DaemonArguments,
  type HandedSockets,
} from './arguments.js';
import { COMMANDS, EVENTS } from './commands/index.js';
import { AllowedFiles, Control, refusal } from './core/index.js';
import { Trace } from './trace/index.js';
import { qemuVersion } from './version.js';
import type { Watch } from './watch/index.js';

/** What a daemon may do, and how it tells of itself. */
export interface DaemonOptions {
  /**
   * Folders below which files and sockets must lie that clients name. Symbolic links are followed. Default: everything that the process
   * may open.
   */
  readonly allow?: readonly string[];
  /** Hears of every event that clients are told. */
  readonly onEvent?: (name: string, data: object | undefined) => void;
  /** Hears why a client was hung up on, or a trace has ended. */
  readonly onRefused?: (error: LacunaError) => void;
}

/** Where a daemon shows what it does. */
export interface DaemonWatchOptions {
  /** `127.0.0.1:PORT`, `[::1]:PORT`, `localhost:PORT`, with 0 for a port that is free, or `unix:PATH`. */
  readonly listen: string;
  /** What those must bring who change something: 16 characters or more. Default: one that nobody can guess. */
  readonly token?: string;
}

/** How a daemon ends. */
export interface DaemonCloseOptions {
  /** Milliseconds for requests in flight, and for storing bitmaps; then it is given up. Default 30,000. */
  readonly timeoutMs?: number;
  /** What clients are told. Default `host-signal`. */
  readonly reason?: 'host-signal' | 'host-qmp-quit';
}

const checkOptions = optionCheck<DaemonOptions>({
  allow: 'any',
  onEvent: 'callback',
  onRefused: 'callback',
});
const checkWatch = optionCheck<DaemonWatchOptions>({
  listen: { needed: '127.0.0.1:PORT or unix:PATH' },
  token: 'any',
});
const checkClose = optionCheck<DaemonCloseOptions>({ timeoutMs: 'any', reason: 'any' });

const CLOSE_MS = 30_000;

/**
 * A graph of nodes with its jobs and exports, which clients steer over QMP as they steer a qemu-storage-daemon. docs/qmp.md lists the
 * commands.
 *
 *     await using daemon = new Daemon();
 *     await daemon.execute('blockdev-add', { driver: 'file', 'node-name': 'disk', filename: '/data/disk.raw' });
 *     await daemon.listen({ path: '/run/daemon.qmp' });
 *     await daemon.ended;
 */
export class Daemon implements AsyncDisposable {
  /** The nodes, for programs that work on them beside the clients. */
  readonly graph: Graph;
  /** Resolves when the daemon has ended, by {@link close} or because a client has said `quit`. Rejects with what was lost at the end. */
  readonly ended: Promise<void>;
  /** @internal */
  readonly control: Control;
  readonly #server: QmpServer;
  readonly #onEvent: NonNullable<DaemonOptions['onEvent']>;
  readonly #onRefused: NonNullable<DaemonOptions['onRefused']>;
  readonly #watches = new Set<Watch>();
  readonly #traces: Trace[] = [];
  #tellEnd: { resolve(): void; reject(error: unknown): void } | undefined;
  #closing: Promise<void> | undefined;

  /** @throws TypeError for options that make no sense; what the file system says of a folder that is not there. */
  constructor(options: DaemonOptions = {}) {
    checkOptions('Daemon', options);
    const { allow, onEvent = () => {}, onRefused = () => {} } = options;
    const isList = allow === undefined || (Array.isArray(allow) && allow.every(isText));
    if (!isList) throw new TypeError('Daemon: allow must be a list of folders');
    const version = qemuVersion();
    this.graph = new Graph();
    this.#onEvent = onEvent;
    this.#onRefused = onRefused;
    this.control = new Control({
      graph: this.graph,
      files: new AllowedFiles(allow),
      version,
      tell: (event, data) => this.#tell(event, data),
      quit: () => this.#quit(),
    });
    this.#server = new QmpServer({
      commands: Object.fromEntries(
        COMMANDS.map((command) => [command.name, (args) => command.run(this.control, args)]),
      ),
      version,
      onRefused,
    });
    this.ended = new Promise((resolve, reject) => {
      this.#tellEnd = { resolve, reject };
    });
    // The caller of close gets this failure too.
    this.ended.catch(() => {});
  }

  /** The names of all commands. */
  get commands(): readonly string[] {
    return COMMANDS.map(({ name }) => name);
  }

  /** The names of all events. */
  get events(): readonly string[] {
    return EVENTS.map(({ name }) => name);
  }

  /**
   * Lets clients connect; it may listen in several places. A Unix socket is made for its owner alone; `{ fd }` is one that this process
   * was handed.
   *
   * @throws LacunaError ERR_DEVICE_OPEN where it cannot listen; TypeError for an address that is none.
   */
  listen(address: QmpListenAddress): Promise<void> {
    return this.#server.listen(address);
  }

  /**
   * Starts what the arguments of a command line say: nodes, exports, and last the monitors. Folders of `allow` do not count for them. Where one
   * is wrong, what came before is there: close the daemon.
   *
   * @throws TypeError that names the argument which is wrong; what opening nodes and listening throws.
   */
  async apply(args: DaemonArguments): Promise<void>;
  /** @internal */
  async apply(args: DaemonArguments, handed?: HandedSockets): Promise<void>;
  async apply(args: DaemonArguments, handed: HandedSockets = {}): Promise<void> {
    for (const path of await applyArguments(this.control, checkArguments(args), handed)) {
      await this.listen({ path });
    }
  }

  /**
   * Carries out a command, as for a client.
   *
   * @throws QmpCommandError where the command is not there or its arguments are wrong; what it fails with.
   */
  async execute(name: string, args: object = {}): Promise<unknown> {
    const command = COMMANDS.find((one) => one.name === name);
    if (command === undefined) {
      throw refusal(`The command ${name} has not been found`, 'CommandNotFound');
    }
    return command.run(this.control, args);
  }

  /**
   * Serves a page that shows the daemon live, and metrics for Prometheus, to this machine alone, until it is closed; docs/watch.md
   * describes both.
   *
   * @throws TypeError or RangeError for options that make no sense. LacunaError ERR_PACKAGE_MISSING where the package prom-client is
   * not installed; ERR_DEVICE_OPEN where the address cannot be listened on.
   */
  async watch(options: DaemonWatchOptions): Promise<Watch> {
    checkWatch('Daemon.watch', options);
    const { startWatch } = await import('./watch/index.js');
    const { DaemonWatchedJobs } = await import('./watched-jobs.js');
    const jobs = new DaemonWatchedJobs(this.control);
    const watch = await startWatch({ ...options, graph: this.graph, jobs });
    this.#watches.add(watch);
    if (this.#closing !== undefined) await watch.close();
    return watch;
  }

  /**
   * Writes down, until the daemon ends, every request at a node, every request and client of the NBD server, and what happens to jobs,
   * as lines of JSON behind what the file has already; docs/daemon.md says what they hold. Where a line cannot be written, `onRefused`
   * hears why, and nothing more is traced.
   *
   * @throws LacunaError ERR_DEVICE_OPEN where the file cannot be written, or is no regular file.
   */
  trace(file: string): void {
    if (typeof file !== 'string' || file === '') {
      throw new TypeError(`Daemon.trace: file must be the path of a file, not ${file}`);
    }
    this.#traces.push(Trace.open(file, this.#onRefused));
  }

  /**
   * Ends the daemon: jobs are cancelled, requests in flight end, bitmaps are stored, clients are disconnected. Closing again is harmless.
   *
   * @throws what could not be stored or closed; Error where the time was over.
   */
  close(options: DaemonCloseOptions = {}): Promise<void> {
    checkClose('Daemon.close', options);
    const { timeoutMs = CLOSE_MS, reason = 'host-signal' } = options;
    if (!(timeoutMs >= 0)) throw new RangeError(`timeoutMs must be 0 or more, not ${timeoutMs}`);
    if (this.#closing === undefined) {
      this.#closing = this.#close(timeoutMs, reason);
      this.#closing.then(this.#tellEnd?.resolve, this.#tellEnd?.reject);
    }
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(timeoutMs: number, reason: string): Promise<void> {
    this.#tell('SHUTDOWN', { guest: false, reason });
    const closed = this.control.close();
    closed.catch(() => {});
    try {
      await inTime(closed, timeoutMs);
    } finally {
      for (const trace of this.#traces) trace.close();
      for (const watch of this.#watches) await watch.close();
      await this.#server.close({ timeoutMs: 1000 });
    }
  }

  /** The client is answered first. */
  #quit(): void {
    setImmediate(() => {
      this.close({ reason: 'host-qmp-quit' }).catch(() => {});
    });
  }

  #tell(event: string, data: object | undefined): void {
    this.#server.event(event, data);
    this.#onEvent(event, data);
    // Those of jobs the page tells by itself.
    if (event.includes('JOB_')) return;
    for (const watch of this.#watches) watch.note(`${event} ${JSON.stringify(data ?? {})}`);
  }
}

function isText(value: unknown): boolean {
  return typeof value === 'string';
}

function inTime(work: Promise<void>, limitMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const stopWaiting = afterWaiting(limitMs, () =>
      reject(
        new Error(`it took longer than ${limitMs} ms to end: what was not stored yet may be lost`),
      ),
    );
    work.finally(stopWaiting).then(resolve, reject);
  });
}
