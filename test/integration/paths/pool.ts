/** Runs command lines with a limit of time: what does not end is an outcome too. */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bytesOf } from './place.js';
import type { Order, Outcome } from './worker.js';

/** Far more than the slowest run takes on a busy machine. */
const LIMIT_MS = 60_000;

const HANGS: Outcome = { code: 'hangs', stdout: '', stderr: '' };

/** The words of every run are the same everywhere. */
const ENVIRONMENT = { LC_ALL: 'C', NO_COLOR: '1', LACUNA_DEBUG: '' };

/** One process for the runs of one user, made again when one hangs. */
export class Runner {
  readonly #root: string;
  readonly #nobody: boolean;
  #child: ChildProcess | undefined;

  /** @param root the checkout, where the user can read it */
  constructor(root: string, { nobody }: { nobody: boolean }) {
    this.#root = root;
    this.#nobody = nobody;
  }

  async run(order: Order): Promise<Outcome> {
    this.#child ??= await this.#start();
    const child = this.#child;
    const answer = nextMessage(child);
    child.send(order);
    const outcome = await withLimit(answer);
    if (outcome !== HANGS) return outcome;
    await this.stop();
    return outcome;
  }

  async stop(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined || child.exitCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }

  async #start(): Promise<ChildProcess> {
    const module = join(this.#root, 'test/integration/paths/worker.ts');
    const child = fork(module, this.#nobody ? ['nobody'] : [], {
      cwd: this.#root,
      execArgv: ['--import', 'tsx'],
      env: { ...process.env, ...ENVIRONMENT },
    });
    await nextMessage(child);
    return child;
  }
}

function nextMessage(child: ChildProcess): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const ended = (code: number | null, signal: string | null) =>
      reject(new Error(`the process of the commands ended: ${signal ?? code}`));
    child.once('exit', ended);
    child.once('message', (message) => {
      child.off('exit', ended);
      resolve(message as Outcome);
    });
  });
}

function withLimit(outcome: Promise<Outcome>): Promise<Outcome> {
  let timer: NodeJS.Timeout;
  const limit = new Promise<Outcome>((resolve) => {
    timer = setTimeout(() => resolve(HANGS), LIMIT_MS);
  });
  return Promise.race([outcome, limit]).finally(() => clearTimeout(timer));
}

/** Runs a command line of any bytes, by a shell, as a process of its own. */
export async function runByShell(root: string, work: string, order: Order): Promise<Outcome> {
  const words = [process.execPath, join(root, 'dist/cli/main.js'), ...order.args];
  const script = join(work, 'command.sh');
  writeFileSync(script, bytesOf(`exec ${words.map(quote).join(' ')}\n`));
  const child = spawn('/bin/sh', [script], { env: { ...process.env, ...ENVIRONMENT } });
  const texts = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      texts[name] += text;
    });
  }
  child.stdin.end();
  if (order.serves) child.stdout.once('data', () => child.kill('SIGTERM'));
  const ended = once(child, 'close').then(([code]): Outcome => ({ code, ...texts }));
  const outcome = await withLimit(ended);
  if (outcome === HANGS) child.kill('SIGKILL');
  return outcome;
}

function quote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
