import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, afterEach } from 'vitest';

/** Which package brings a program, for the error when it is missing. */
const PACKAGES: Readonly<Record<string, string>> = {
  nbdkit: 'nbdkit',
  'nbd-server': 'nbd-server',
  nbdinfo: 'libnbd-bin',
  nbdcopy: 'libnbd-bin',
  openssl: 'openssl',
  'qemu-ga': 'qemu-guest-agent',
  'qemu-img': 'qemu-utils',
  'qemu-io': 'qemu-utils',
  'qemu-nbd': 'qemu-utils',
  'qemu-storage-daemon': 'qemu-system-common',
  'qemu-system-x86_64': 'qemu-system-x86',
};

/** Longer than a busy machine takes. */
const START_MS = 120_000;
const STOP_MS = 60_000;
/** Nothing depends any more on how a peer ends that is ended after a test. */
const CLEAN_UP_MS = 10_000;

/** Something that accepts connections on a private Unix socket. */
export interface SocketPeer {
  readonly server: { type: 'unix'; path: string };
  /** `nbd+unix:///?socket=PATH`; put an export's name behind the third slash. */
  readonly uri: string;
  /** What it wrote to standard error. */
  log(): string;
  /** Ends what was started, by its id, and waits for it; kills what takes longer; harmless when it has ended. */
  stop(signal?: NodeJS.Signals, patienceMs?: number): Promise<void>;
}

/** A server process of its own. */
export interface Peer extends SocketPeer {
  readonly pid: number;
}

/** Options of an export in the configuration file of nbd-server. */
export interface ServerSection {
  /** The file that is served. */
  readonly exportname?: string;
  readonly [option: string]: string | number | boolean | undefined;
}

/** Servers for tests, all ended and their folder removed after each test (or after the suite). */
export class Peers {
  readonly #running = new Set<Pick<Peer, 'stop'>>();
  #folder: Promise<string> | undefined;
  #sockets = 0;

  /** A folder for images and sockets, removed together with the peers. */
  folder(): Promise<string> {
    // Short, because a Unix socket's path holds 107 bytes at most.
    this.#folder ??= mkdtemp(join(tmpdir(), 'lacuna-'));
    return this.#folder;
  }

  /**
   * `nbdkit [ARGUMENTS]`, for example `['pattern', '64M']`; in the foreground, on a Unix socket, or in the
   * place of a peer that has ended.
   */
  async nbdkit(args: readonly string[], ended?: Peer): Promise<Peer> {
    const path = ended?.server.path ?? (await this.#socketPath());
    await rm(path, { force: true });
    // With its stop by the parent's death, no server outlives a killed test run.
    const fixed = ['--foreground', '--exit-with-parent', '--unix', path];
    return this.#start('nbdkit', [...fixed, ...args], path);
  }

  /** `qemu-nbd [ARGUMENTS]`, for example `['-f', 'qcow2', path]`; stays up between clients. */
  async qemuNbd(args: readonly string[]): Promise<Peer> {
    const path = await this.#socketPath();
    const peer = await this.#start('qemu-nbd', ['--persistent', '--socket', path, ...args], path);
    // It listens before it opens, and locks, what it serves.
    await greeted(path);
    return peer;
  }

  /** `qemu-storage-daemon [ARGUMENTS]`, with an NBD server; the arguments add nodes and exports. */
  async storageDaemon(args: readonly string[]): Promise<Peer> {
    const path = await this.#socketPath();
    const server = ['--nbd-server', `addr.type=unix,addr.path=${path}`];
    return this.#start('qemu-storage-daemon', [...server, ...args], path);
  }

  /** `qemu-storage-daemon [ARGUMENTS]` with a monitor on its socket, and no NBD server. */
  async monitoredDaemon(args: readonly string[] = [], monitor = ''): Promise<Peer> {
    const path = await this.#socketPath();
    const chardev = `socket,id=monitor,path=${path},server=on,wait=off`;
    const fixed = ['--chardev', chardev, '--monitor', `chardev=monitor${monitor}`];
    const { LACUNA_STORAGE_DAEMON: program = 'qemu-storage-daemon' } = process.env;
    // It crashes while it starts about once in 20,000 times (7.2), also after its socket is there.
    for (let tries = 1; ; tries++) {
      const daemon = await this.#start(program, [...args, ...fixed], path);
      if ((await daemon.greets()) || tries === 3) return daemon;
    }
  }

  /** A machine whose processors stand still, with a monitor on its socket. */
  async machine(args: readonly string[] = []): Promise<Peer> {
    const path = await this.#socketPath();
    const fixed = ['-nodefaults', '-no-user-config', '-display', 'none', '-S', '-accel', 'tcg'];
    const monitor = ['-qmp', `unix:${path},server=on,wait=off`];
    const { LACUNA_QEMU: program = 'qemu-system-x86_64' } = process.env;
    return this.#start(program, [...fixed, ...monitor, ...args], path);
  }

  /** The guest agent, running here and so never allowed to do anything to this machine. */
  async guestAgent(): Promise<Peer> {
    const path = await this.#socketPath();
    const folder = await this.folder();
    const forbidden = [
      ...['fsfreeze-freeze', 'fsfreeze-freeze-list', 'fsfreeze-thaw', 'shutdown', 'fstrim', 'exec'],
      ...['suspend-disk', 'suspend-ram', 'suspend-hybrid', 'set-time', 'set-user-password'],
      ...['file-open', 'set-vcpus', 'set-memory-blocks', 'ssh-add-authorized-keys'],
    ].map((name) => `guest-${name}`);
    const place = ['-m', 'unix-listen', '-p', path, '-t', folder, '-f', `${path}.pid`];
    return this.#start('qemu-ga', [...place, '-b', forbidden.join(',')], path);
  }

  /**
   * nbd-server with these exports: the options of each section of its configuration file. It knows no foreground, and a
   * daemon would outlive a killed test run; so one is started for each client, as inetd does.
   */
  async nbdServer(exports: Readonly<Record<string, ServerSection>>): Promise<SocketPeer> {
    const path = await this.#socketPath();
    const configuration = `${path}.conf`;
    await writeFile(configuration, sectionsOf({ generic: { allowlist: true }, ...exports }));
    // Its command line must name a file, which it then serves by the empty name.
    const [{ exportname: file }] = Object.values(exports);
    const args = ['-d', '-C', configuration, '0', String(file), '-r'];
    const peer = new InetdPeer('nbd-server', args, path);
    this.#running.add(peer);
    await peer.listening();
    return peer;
  }

  /** Ends everything that was started. */
  async stopAll(): Promise<void> {
    await Promise.all([...this.#running].map((peer) => peer.stop('SIGTERM', CLEAN_UP_MS)));
    const folder = await this.#folder;
    this.#folder = undefined;
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  }

  async #socketPath(): Promise<string> {
    return join(await this.folder(), `${this.#sockets++}.sock`);
  }

  async #start(program: string, args: readonly string[], path: string): Promise<ChildPeer> {
    // Programs for administrators are not in the path of every user.
    const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
    const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'], env });
    const peer = new ChildPeer(child, path, () => this.#running.delete(peer));
    this.#running.add(peer);
    try {
      await peer.accepting();
    } catch (cause) {
      await peer.stop();
      throw isMissing(cause) ? missing(program, cause) : cause;
    }
    return peer;
  }
}

/** Peers for the tests of the file or `describe` that calls this. */
export function usePeers(lifetime: 'test' | 'suite' = 'test'): Peers {
  const peers = new Peers();
  const hook = lifetime === 'test' ? afterEach : afterAll;
  hook(() => peers.stopAll());
  return peers;
}

/** Runs a program to its end and returns its standard output. */
export async function run(program: string, args: readonly string[]): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)(program, args, { maxBuffer: 2 ** 26 });
    return stdout;
  } catch (cause) {
    throw isMissing(cause) ? missing(program, cause) : cause;
  }
}

class ChildPeer implements Peer {
  readonly server: { type: 'unix'; path: string };
  readonly uri: string;
  readonly #child: ChildProcess;
  readonly #exited: Promise<void>;
  /** What ended it, where that was a signal. */
  #signal: NodeJS.Signals | null = null;
  #spawnError: Error | undefined;
  #ended = false;
  #log = '';

  constructor(child: ChildProcess, path: string, onExit: () => void) {
    this.#child = child;
    this.server = { type: 'unix', path };
    this.uri = `nbd+unix:///?socket=${path}`;
    child.stderr?.on('data', (text) => {
      this.#log = (this.#log + text).slice(-65536);
    });
    this.#exited = new Promise((resolve) => {
      const ended = (error?: Error) => {
        this.#spawnError ??= error;
        this.#ended = true;
        onExit();
        resolve();
      };
      child.once('error', ended);
      child.once('exit', (_code, signal) => {
        this.#signal = signal;
        ended();
      });
    });
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  log(): string {
    return this.#log;
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM', patienceMs = STOP_MS): Promise<void> {
    if (!this.#ended) this.#child.kill(signal);
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), patienceMs);
    await this.#exited;
    clearTimeout(timer);
  }

  /** Waits until a monitor greets; false when the program has crashed instead. */
  async greets(): Promise<boolean> {
    const deadline = Date.now() + START_MS;
    // A client that comes while the one before it leaves may be turned away.
    while (!(await greeted(this.server.path))) {
      if (this.#ended) return this.#signal !== 'SIGSEGV';
      if (Date.now() > deadline) throw new Error(`${this.#child.spawnfile} does not greet`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    return true;
  }

  /** Tries to connect until it is let in: the socket's file appears before anybody listens. */
  async accepting(): Promise<void> {
    const deadline = Date.now() + START_MS;
    while (!(await canConnect(this.server.path))) {
      if (this.#spawnError !== undefined) throw this.#spawnError;
      if (this.#ended) throw new Error(`${this.#child.spawnfile} ended at once: ${this.#log}`);
      if (Date.now() > deadline) throw new Error(`${this.#child.spawnfile} does not listen`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

/** Starts a program for each client, with the client's socket as its standard input. */
class InetdPeer implements SocketPeer {
  readonly server: { type: 'unix'; path: string };
  readonly uri: string;
  readonly #program: string;
  readonly #args: readonly string[];
  readonly #listener = createServer({ pauseOnConnect: true }, (socket) => this.#serve(socket));
  readonly #children = new Set<ChildProcess>();
  #log = '';

  constructor(program: string, args: readonly string[], path: string) {
    this.server = { type: 'unix', path };
    this.uri = `nbd+unix:///?socket=${path}`;
    this.#program = program;
    this.#args = args;
  }

  async listening(): Promise<void> {
    this.#listener.listen(this.server.path);
    await once(this.#listener, 'listening');
  }

  log(): string {
    return this.#log;
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM', patienceMs = STOP_MS): Promise<void> {
    this.#listener.close();
    const ended = [...this.#children].map((child) => once(child, 'exit'));
    for (const child of this.#children) child.kill(signal);
    const kill = () => this.#children.forEach((child) => void child.kill('SIGKILL'));
    const timer = setTimeout(kill, patienceMs);
    await Promise.all(ended);
    clearTimeout(timer);
  }

  #serve(socket: Socket): void {
    const child = spawn(this.#program, this.#args, { stdio: [socket, 'ignore', 'pipe'] });
    this.#children.add(child);
    child.stderr?.on('data', (text) => {
      this.#log += text;
    });
    child.once('error', (error) => {
      this.#log += isMissing(error) ? missing(this.#program, error).message : error.message;
      this.#children.delete(child);
    });
    child.once('exit', () => this.#children.delete(child));
    // The program has its own hold on it.
    socket.destroy();
  }
}

function sectionsOf(sections: Readonly<Record<string, ServerSection>>): string {
  const lines = Object.entries(sections).flatMap(([name, options]) => [
    `[${name}]`,
    ...Object.entries(options).map(([key, value]) => `${key} = ${value}`),
  ]);
  return `${lines.join('\n')}\n`;
}

function canConnect(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/** Waits for the first bytes of a server, or until it hangs up; tells whether they came. */
function greeted(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    let hasCome = false;
    socket.once('data', () => {
      hasCome = true;
      socket.destroy();
    });
    // That it ended is told by whatever is asked of it next.
    socket.once('error', () => {});
    socket.once('close', () => resolve(hasCome));
  });
}

function isMissing(cause: unknown): boolean {
  return (cause as NodeJS.ErrnoException).code === 'ENOENT';
}

function missing(program: string, cause: unknown): Error {
  const name = PACKAGES[program] ?? program;
  return new Error(`${program} is not installed; install it with: apt install ${name}`, { cause });
}
