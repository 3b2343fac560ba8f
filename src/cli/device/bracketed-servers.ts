/** `[ nbdkit ... ]` in place of a device: an NBD server that is started for the command, as nbdcopy has it. */
import type { Command } from 'commander';
import { LacunaError } from '../../errors/index.js';
import type { Shell } from '../shell/index.js';
import { StartedServer } from './started-server.js';

/** A server whose connection is gone ends in a moment, and knows why. */
const ITS_WORDS_MS = 2000;

export class BracketedServers {
  /** The command line, with one argument for each server. */
  readonly argv: readonly string[];
  readonly #shell: Shell;
  /** By the argument that stands for it. */
  readonly #words = new Map<string, readonly string[]>();
  readonly #started: StartedServer[] = [];

  /** @throws TypeError where a bracket has no end, or nothing in it */
  constructor(argv: readonly string[], shell: Shell) {
    this.#shell = shell;
    const folded: string[] = [];
    for (let at = 0; at < argv.length; at++) {
      if (argv[at] !== '[') {
        folded.push(argv[at]);
        continue;
      }
      const end = argv.indexOf(']', at);
      if (end < 0) {
        throw new TypeError(
          '"[" begins an NBD server, which "]" must end; a file of this name is ./[',
        );
      }
      folded.push(this.#fold(argv.slice(at + 1, end)));
      at = end;
    }
    this.argv = folded;
  }

  /** Starts what the arguments of a command name, and puts the URIs in their places. */
  async startFor(command: Command): Promise<void> {
    const odd = Object.values(command.opts())
      .flat()
      .find((value) => this.#words.has(value));
    if (odd !== undefined) throw new TypeError(`${odd} is a device, and not for an option`);
    for (const [index, argument] of command.processedArgs.entries()) {
      command.processedArgs[index] = Array.isArray(argument)
        ? await this.#startAll(argument)
        : await this.#start(argument);
    }
  }

  /** What a server says where it is the reason of an error. */
  async explain(error: unknown): Promise<unknown> {
    const isOfDevice = error instanceof LacunaError && /^ERR_(NBD|DEVICE)_/.test(error.code);
    const failures = this.#started.map((server) => server.failure(isOfDevice ? ITS_WORDS_MS : 0));
    const [failure] = (await Promise.all(failures)).filter((each) => each !== undefined);
    if (failure === undefined) return error;
    const { code, message, device } = failure;
    return new LacunaError(code, message, { device, cause: error });
  }

  /** Ends all that were started, also where one of them fails. */
  async end(): Promise<void> {
    const ends = await Promise.allSettled(this.#started.map((server) => server.end(this.#shell)));
    const failed = ends.find((end) => end.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  #fold(words: readonly string[]): string {
    if (words.length === 0) throw new TypeError('[ ] names no program: say [ nbdkit ... ]');
    let name = `[ ${words.join(' ')} ]`;
    // Two servers may read the same, as words may hold spaces.
    while (this.#words.has(name)) name += ' ';
    this.#words.set(name, words);
    return name;
  }

  async #startAll(names: readonly unknown[]): Promise<unknown[]> {
    const all: unknown[] = [];
    for (const name of names) all.push(await this.#start(name));
    return all;
  }

  async #start(name: unknown): Promise<unknown> {
    const words = typeof name === 'string' ? this.#words.get(name) : undefined;
    if (words === undefined) return name;
    const server = await StartedServer.start(words, this.#shell);
    this.#started.push(server);
    return server.uri;
  }
}
