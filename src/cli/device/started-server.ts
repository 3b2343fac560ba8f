/** A program of others that serves a disk over NBD for one command, and ends with it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, renameSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { LacunaError } from '../../errors/index.js';
import { noteStep, type Shell } from '../shell/index.js';

/**
 * Starts the program with a listening socket (systemd's socket activation), and tells it to end when standard input
 * does: that is the one thing which happens however this process ends, by kill -9 too. Then nothing is left of it.
 */
const KEEPER = `
socket=$1; shift
exec 4<&0 </dev/null 1>&2
sh -c 'unset LISTEN_FDNAMES; LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS; exec "$@"' sh "$@" 4<&- &
server=$!
exec 3<&-
(read -r _ <&4; kill "$server") 2>/dev/null &
keeper=$!
wait "$server" 2>/dev/null; code=$?
kill "$keeper" 2>/dev/null
rm -f "$socket"; rmdir "\${socket%/*}"
exit "$code"
`;

/** What a program needs to serve several connections, one after the other as well; what people say comes later and counts. */
const NEEDS: Readonly<Record<string, readonly string[]>> = {
  'qemu-nbd': ['--persistent', '--shared=0'],
};

/** Bytes that every system allows for the name of a Unix socket. */
const LONGEST_NAME = 103;

const NAME = 'socket';

/** Behind the name that the socket has first. */
const MADE = '.made';

/** Exit code of a program that ends by SIGTERM, as a shell tells it. */
const TERMINATED = 143;

/** After its end, for what it has said before. */
const LAST_WORDS_MS = 1000;

/** After which people are told what is waited for. */
const PATIENCE_MS = 5000;

export class StartedServer {
  /** What is opened in its place. */
  readonly uri: string;
  readonly #program: string;
  readonly #child: ChildProcess;
  /** Its exit code. */
  readonly #ended: Promise<number>;
  #code: number | undefined;
  #isTold = false;
  #lastWords = '';

  /** @param words the program and its arguments */
  static async start(words: readonly string[], shell: Shell): Promise<StartedServer> {
    const [program, ...rest] = words;
    const folder = newFolder();
    const socket = join(folder, NAME);
    const all = [program, ...(NEEDS[basename(program)] ?? []), ...rest];
    noteStep(`starts ${program}`, shell);
    let server: Server | undefined;
    try {
      server = await listen(`${socket}${MADE}`);
      // Node removes what it has bound when that is closed, by its first name.
      renameSync(`${socket}${MADE}`, socket);
      const child = spawn('sh', ['-c', KEEPER, 'sh', socket, ...all], {
        stdio: ['pipe', 'ignore', 'pipe', descriptorOf(server)],
        // Ctrl-C is for this process, which finishes what is in flight.
        detached: true,
      });
      return new StartedServer(program, socket, child, shell);
    } catch (error) {
      rmSync(folder, { recursive: true, force: true });
      throw error;
    } finally {
      server?.close();
    }
  }

  private constructor(program: string, socket: string, child: ChildProcess, shell: Shell) {
    this.uri = `nbd+unix:///?socket=${encodeURIComponent(socket)}`;
    this.#program = program;
    this.#child = child;
    this.#ended = new Promise((resolve) => {
      const end = (code: number) => {
        this.#code = code;
        child.stderr?.destroy();
        resolve(code);
      };
      child.once('close', (code) => end(code ?? TERMINATED));
      // What it has started, and left, may hold its standard error for ever.
      child.once('exit', (code) => void setTimeout(end, LAST_WORDS_MS, code ?? TERMINATED).unref());
      child.once('error', ({ message }) => {
        this.#lastWords = message;
        end(1);
      });
    });
    (child.stdin as Writable).on('error', () => {});
    this.#hear(child.stderr as Readable, shell);
  }

  /** Why it has ended by itself, where it has or does so at once; undefined where it goes on, or nothing was wrong. */
  async failure(withinMs: number): Promise<LacunaError | undefined> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, withinMs);
    });
    await Promise.race([this.#ended, late]).finally(() => clearTimeout(timer));
    return this.#failure();
  }

  /**
   * Tells it to end, and waits until it has.
   *
   * @throws LacunaError ERR_SERVER_FAILED when it ended with another exit code than 0
   */
  async end(shell: Shell): Promise<void> {
    this.#isTold = this.#code === undefined;
    this.#child.stdin?.end();
    const told = setTimeout(() => {
      shell.note(`lacuna: waiting for ${this.#program} (process ${this.#child.pid}) to end\n`);
    }, PATIENCE_MS);
    await this.#ended.finally(() => clearTimeout(told));
    const failure = this.#failure();
    if (failure !== undefined) throw failure;
  }

  #failure(): LacunaError | undefined {
    const code = this.#code;
    if (code === undefined || code === 0 || (this.#isTold && code === TERMINATED)) return undefined;
    const program = this.#program;
    const words = this.#lastWords === '' ? '' : `: ${this.#lastWords}`;
    const how = code > 128 ? `was ended by signal ${code - 128}` : `ended with exit code ${code}`;
    const message =
      code === 127
        ? `${program} was not found: install it, or name it by its path`
        : `${program} ${how}${words}`;
    return new LacunaError('ERR_SERVER_FAILED', message, { device: program });
  }

  #hear(stream: Readable, shell: Shell): void {
    let rest = '';
    stream.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) this.#tell(line, shell);
    });
    stream.on('end', () => this.#tell(rest, shell));
  }

  #tell(line: string, shell: Shell): void {
    if (line === '') return;
    this.#lastWords = line;
    shell.note(`${line}\n`);
  }
}

/** For nobody but this user: who can connect to the socket can read the disk. */
function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'lacuna-'));
  if (Buffer.byteLength(join(folder, NAME + MADE)) <= LONGEST_NAME) return folder;
  rmSync(folder, { recursive: true });
  return mkdtempSync('/tmp/lacuna-');
}

/** Node tells it of streams and files only. */
function descriptorOf(server: Server): number {
  const { fd = -1 } = (server as unknown as { _handle?: { fd?: number } })._handle ?? {};
  if (fd >= 0) return fd;
  const message =
    'this runtime cannot hand over a socket: start the server yourself, and name its URI';
  throw new LacunaError('ERR_SERVER_FAILED', message);
}

function listen(path: string): Promise<Server> {
  const server = createServer();
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => resolve(server));
  });
}
