/**
 * Takes away what a session has in QEMU. Nothing is assumed of what was done: QEMU is asked what is there, what is there is
 * told to go, and QEMU is asked again. So it may be called at any time, by anybody, as often as one likes.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { LacunaError } from '../../errors/index.js';
import type { NbdServerAddress } from '../../nbd/index.js';
import type { Monitor } from '../../qmp/index.js';
import { countsFrom, type Journal, prefixOfRecording, type SessionNames } from '../state/index.js';
import { socketUse } from './sockets.js';

/** For each kind of thing to be gone. */
const LIMIT_MS = 30_000;
/** Between two looks: short first, as most things go at once. */
const SHORTEST_PAUSE_MS = 1;
const LONGEST_PAUSE_MS = 100;
/** In this version and later, a server may be stopped while somebody connects. */
const SAFE_STOP_FROM = 8;

export class Teardown {
  readonly #monitor: Monitor;
  readonly #names: SessionNames;

  constructor(monitor: Monitor, names: SessionNames) {
    this.#monitor = monitor;
    this.#names = names;
  }

  /**
   * Ends exports, jobs that read the view, those that hold it, and nodes, in this order, and removes the bitmaps in which a populate has recorded.
   *
   * @throws LacunaError ERR_MACHINE_LEFTOVERS that names what is left; what the monitor throws.
   */
  async run(): Promise<void> {
    await this.#until('exports', () => this.#endExports());
    await this.#until('jobs', () => this.#endJobs((id) => this.#names.pushes(id)));
    await this.#until('nodes', () => this.#deleteNodes('-a'));
    await this.#until('jobs', () => this.#endJobs((id) => this.#names.owns(id)));
    await this.#until('nodes', () => this.#deleteNodes('-[st]'));
    const isOurs = (name: string) => prefixOfRecording(name) === this.#names.prefix;
    await this.#until('bitmaps', async () => (await this.#removeWhere(isOurs)).left);
  }

  /**
   * Stops the NBD server that the session has started, if it has.
   *
   * @throws LacunaError ERR_MACHINE_LEFTOVERS where it goes on; what the monitor throws.
   */
  async endServer({ server, isOurs }: Journal['nbd']): Promise<void> {
    const warning = isOurs ? await this.stopServer(server) : undefined;
    if (warning === undefined) return;
    throw new LacunaError('ERR_MACHINE_LEFTOVERS', warning, { retryable: true });
  }

  /**
   * As {@link endServer}, for a server that is the session's.
   *
   * @returns a warning where it goes on.
   */
  async stopServer(server: NbdServerAddress): Promise<string | undefined> {
    if (server.type !== 'unix') return undefined;
    const use = socketUse(server.path);
    if (use !== undefined && !use.isOpen) return undefined;
    const exports = await this.#monitor.execute('query-block-exports');
    const others = exports.filter(({ type }) => type === 'nbd').map(({ id }) => id);
    if (others.length > 0) {
      return `the NBD server at ${server.path} goes on: others export ${others.join(', ')} there`;
    }
    if (this.#monitor.version.major < SAFE_STOP_FROM && !(await this.#isQuiet(server.path))) {
      return `the NBD server at ${server.path} goes on: somebody is connected, and this QEMU could hang if it were stopped`;
    }
    await this.#tolerant('nbd-server-stop', {});
    return undefined;
  }

  /**
   * Removes the bitmaps that count from a generation, from whatever nodes have them.
   *
   * @returns warnings: where it stays, because it is stored in an image that QEMU does not write.
   */
  async removeBitmaps(generation: string): Promise<string[]> {
    let kept = new Map<string, string>();
    await this.#until('bitmaps', async () => {
      const found = await this.#removeWhere((name) => countsFrom(generation, name));
      kept = found.kept;
      return found.left;
    });
    return [...kept].map(
      ([node, name]) =>
        `the bitmap "${name}" stays in the image of the node "${node}", which is read-only: a snapshot was made over it`,
    );
  }

  /** Tells bitmaps to go. `kept` are those that cannot be removed, by their nodes; `left` the others. */
  async #removeWhere(isObsolete: (name: string) => boolean) {
    const nodes = await this.#monitor.execute('query-named-block-nodes');
    const kept = new Map<string, string>();
    const left: string[] = [];
    for (const { 'node-name': node = '', ro, 'dirty-bitmaps': bitmaps = [] } of nodes) {
      for (const { name, persistent } of bitmaps) {
        if (name === undefined || !isObsolete(name)) continue;
        if (ro && persistent) {
          kept.set(node, name);
          continue;
        }
        await this.#tolerant('block-dirty-bitmap-remove', { node, name });
        left.push(`"${name}" of the node "${node}"`);
      }
    }
    return { kept, left };
  }

  async #endExports(): Promise<string[]> {
    const exports = await this.#monitor.execute('query-block-exports');
    const ours = exports.filter(({ id }) => this.#names.owns(id));
    for (const { id, 'shutting-down': isEnding } of ours) {
      if (!isEnding) await this.#tolerant('block-export-del', { id, mode: 'hard' });
    }
    return ours.map(({ id }) => id);
  }

  async #endJobs(isOurs: (id: string) => boolean): Promise<string[]> {
    const jobs = await this.#monitor.execute('query-jobs');
    const ours = jobs.filter(({ id }) => isOurs(id));
    for (const { id, status } of ours) {
      if (status === 'concluded') await this.#tolerant('job-dismiss', { id });
      else if (status !== 'aborting') await this.#tolerant('job-cancel', { id });
    }
    return ours.map(({ id }) => id);
  }

  /** Nodes of this kind; those inside them go with them. */
  async #deleteNodes(kind: string): Promise<string[]> {
    const nodes = await this.#monitor.execute('query-named-block-nodes');
    const begin = new RegExp(`^${this.#names.prefix}${kind}\\d`);
    const ours = nodes.flatMap(({ 'node-name': name = '' }) => (begin.test(name) ? [name] : []));
    for (const name of ours) await this.#tolerant('blockdev-del', { 'node-name': name });
    return ours;
  }

  /** Refusals show what is still in use, or gone by now; the next look tells which. */
  async #tolerant(command: string, args: object): Promise<void> {
    try {
      await this.#monitor.execute(command, args);
    } catch (error) {
      if (!(error instanceof LacunaError) || error.code !== 'ERR_QMP_COMMAND') throw error;
      this.#refusal = error;
    }
  }

  #refusal: LacunaError | undefined;

  /** Repeats a step until it finds nothing any more; over a new connection where the old one is lost. */
  async #until(what: string, step: () => Promise<string[]>): Promise<void> {
    const end = performance.now() + LIMIT_MS;
    this.#refusal = undefined;
    for (let pauseMs = SHORTEST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
      const left = await this.#look(step);
      if (left?.length === 0) return;
      if (performance.now() > end) throw this.#leftovers(`${what} ${left?.join(', ') ?? ''}`);
      await sleep(pauseMs);
    }
  }

  /** Undefined where the connection was lost, and is there again. */
  async #look(step: () => Promise<string[]>): Promise<string[] | undefined> {
    try {
      return await step();
    } catch (error) {
      const isLost = error instanceof LacunaError && !this.#monitor.isConnected;
      if (!isLost) throw error;
      await this.#monitor.reconnect();
      return undefined;
    }
  }

  #leftovers(what: string): LacunaError {
    const { name } = this.#monitor;
    const why = this.#refusal === undefined ? '' : `: ${this.#refusal.description}`;
    return new LacunaError(
      'ERR_MACHINE_LEFTOVERS',
      `${name}: ${what} of this work cannot be removed from the machine${why}; call recover() later`,
      { device: name, cause: this.#refusal, retryable: true },
    );
  }

  /** Waits until nobody is connected to our socket; ours are closed, and the folder lets nobody else in. */
  async #isQuiet(path: string): Promise<boolean> {
    for (const end = performance.now() + QUIET_MS; performance.now() < end; ) {
      const use = socketUse(path);
      if (use === undefined) return false;
      if (use.connections === 0) return true;
      await sleep(LONGEST_PAUSE_MS / 4);
    }
    return false;
  }
}

const QUIET_MS = 10_000;
