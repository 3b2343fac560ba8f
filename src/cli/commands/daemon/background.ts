/** Lets a command go on in the background: another process runs it, and this one waits until that is ready. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, writeSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import { Exit, type Shell } from '../../shell/index.js';

/** The descriptor over which the process in the background says that it is ready. */
const READY_FD = 3;

/** Runs the same command line in the background. Where it does not become ready, this ends as that has. */
export async function inBackground(shell: Shell): Promise<void> {
  const args = process.argv.slice(1).filter((one) => one !== '--daemonize');
  const child = spawn(
    process.execPath,
    [...process.execArgv, ...args, '--ready-fd', String(READY_FD)],
    { detached: true, stdio: ['ignore', 'ignore', 'pipe', 'pipe'] },
  );
  const errors = child.stderr as Readable;
  errors.setEncoding('utf8').on('data', (text: string) => shell.noteLines(text));
  const ready = once(child.stdio[READY_FD] as Readable, 'data').then(() => true);
  const ended = once(child, 'close').then(() => false);
  const end = () => child.kill('SIGTERM');
  shell.signal.addEventListener('abort', end);
  const isReady = await Promise.race([ready, ended]);
  shell.signal.removeEventListener('abort', end);
  if (!isReady) {
    shell.exitCode = child.exitCode ?? Exit.failed;
    return;
  }
  // What it has said before lies in the other pipe, and is read by then.
  await turn();
  for (const stream of [errors, child.stdio[READY_FD] as Readable]) stream.destroy();
  child.unref();
}

/** Says that it is ready, if somebody waits for that. */
export function tellReady(fd: string | undefined): void {
  if (fd === undefined) return;
  writeSync(Number(fd), '\n');
  closeSync(Number(fd));
}
