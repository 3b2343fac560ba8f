/** Commands of the user that run before and after a backup of a running machine. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { LacunaError } from '../../../errors/index.js';
import type { BackupHooks, BackupOutcome } from '../../../qemu/index.js';
import { afterWaiting, onAbort } from '../../../util/index.js';
import { oneLine, type Shell } from '../../shell/index.js';

export interface HookFlags {
  before?: string;
  after?: string;
  hookTimeout?: number;
}

/** What a backup is of. */
interface Subject {
  readonly machine: string;
  /** The path of the repository. */
  readonly repository: string;
}

const TIMEOUT_SECONDS = 600;
/** A command that was told to end gets so much time for it. */
const END_MS = 5000;
/** What a command has printed before it ended is waited for so long, where something that it has started holds the pipes. */
const LAST_WORDS_MS = 1000;
const LOOK_MS = 50;

/** What `backupMachine` calls for the flags, and whether that of `--after` has failed. */
export function hooksOf(
  { before, after, hookTimeout = TIMEOUT_SECONDS }: HookFlags,
  { machine, repository }: Subject,
  shell: Shell,
): { readonly hooks: BackupHooks; hasFailed(): boolean } {
  const common = { LACUNA_MACHINE: machine, LACUNA_REPOSITORY: repository };
  const limitMs = hookTimeout * 1000;
  let hasFailed = false;
  const runBefore = async () => {
    const given = { ...common, LACUNA_HOOK: 'before' };
    // An interruption ends it: nothing is begun yet.
    await new Hook('before', before!, shell).run(given, limitMs, shell.signal);
  };
  const runAfter = async (outcome: BackupOutcome) => {
    const given = { ...common, LACUNA_HOOK: 'after', ...outcomeOf(outcome) };
    try {
      await new Hook('after', after!, shell).run(given, limitMs);
    } catch (error) {
      hasFailed = true;
      throw error;
    }
  };
  const hooks = {
    ...(before !== undefined && { before: runBefore }),
    ...(after !== undefined && { after: runAfter }),
  };
  return { hooks, hasFailed: () => hasFailed };
}

function outcomeOf(outcome: BackupOutcome): Record<string, string> {
  if (outcome.done) {
    return { LACUNA_OUTCOME: 'done', LACUNA_POINT: String(outcome.report.point.number) };
  }
  const { error } = outcome;
  const code = error instanceof LacunaError ? error.code : error.name;
  return {
    LACUNA_OUTCOME: 'failed',
    LACUNA_ERROR_CODE: code,
    LACUNA_ERROR: oneLine(error.message),
  };
}

class Hook {
  readonly #name: 'before' | 'after';
  readonly #command: string;
  readonly #shell: Shell;
  #why: string | undefined;

  constructor(name: 'before' | 'after', command: string, shell: Shell) {
    this.#name = name;
    this.#command = command;
    this.#shell = shell;
  }

  /** @throws LacunaError ERR_HOOK_FAILED */
  async run(env: Record<string, string>, limitMs: number, signal?: AbortSignal): Promise<void> {
    // In a group of its own, so that everything that it has started can be told to end.
    const child = spawn('/bin/sh', ['-c', this.#command], {
      detached: true,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const closed = once(child, 'close').catch(() => {});
    for (const stream of [child.stdout, child.stderr]) this.#show(stream);
    const end = (why: string) => this.#end(child, why);
    const interrupted = () => end('was interrupted');
    const stopWaiting = afterWaiting(limitMs, () =>
      end(`did not end within ${limitMs / 1000} s (--hook-timeout)`),
    );
    if (signal?.aborted) interrupted();
    else if (signal) onAbort(signal, interrupted);
    try {
      const [code, by] = await once(child, 'exit');
      await this.#letGo(child, closed);
      if (code !== 0) throw this.#failure(this.#why ?? `ended with ${by ?? code}`);
    } finally {
      stopWaiting();
      signal?.removeEventListener('abort', interrupted);
    }
  }

  /** The command has ended; what it has started may go on, and hold the pipes, unless it is to be ended as well. */
  async #letGo(child: ChildProcess, closed: Promise<unknown>): Promise<void> {
    if (this.#why !== undefined) await endGroup(child);
    const late = sleep(LAST_WORDS_MS, 'late', { ref: false });
    if ((await Promise.race([closed, late])) !== 'late') return;
    // What it prints is shown as long as this process lives, which is no longer for that.
    for (const stream of [child.stdout, child.stderr]) (stream as Socket).unref();
  }

  /** On standard error, line by line: standard output may be one JSON document. */
  #show(stream: Readable): void {
    createInterface({ input: stream }).on('line', (line) =>
      this.#shell.note(`${this.#name}: ${line}\n`),
    );
  }

  #end(child: ChildProcess, why: string): void {
    this.#why ??= why;
    const hasEnded = () => child.exitCode !== null || child.signalCode !== null;
    if (hasEnded()) return;
    signalGroup(child, 'SIGTERM');
    setTimeout(() => hasEnded() || signalGroup(child, 'SIGKILL'), END_MS).unref();
  }

  #failure(why: string): LacunaError {
    const what =
      this.#name === 'before'
        ? 'the backup was not begun: the command of --before'
        : 'the command of --after';
    return new LacunaError('ERR_HOOK_FAILED', `${what} ${why}: ${this.#command}`);
  }
}

/** A group that was told to end is killed where something in it is still there after a while. */
async function endGroup(child: ChildProcess): Promise<void> {
  for (let waitedMs = 0; waitedMs < END_MS; waitedMs += LOOK_MS) {
    if (!signalGroup(child, 0)) return;
    await sleep(LOOK_MS);
  }
  signalGroup(child, 'SIGKILL');
}

/** Whether there is something in the group. */
function signalGroup({ pid }: ChildProcess, signal: NodeJS.Signals | 0): boolean {
  if (pid === undefined) return false;
  try {
    return process.kill(-pid, signal);
  } catch {
    // It has ended.
    return false;
  }
}
