import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';

/** A server of its own for one test. */
export interface Server {
  readonly uri: string;
  stop(): Promise<void>;
}

/** Whether a program is installed; tests that need one that is not are skipped, and say so. */
export function installed(program: string): boolean {
  try {
    execFileSync(program, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** Starts a server that makes `socket` in a new folder; `command` tells how. */
export async function serve(
  command: (socket: string, folder: string) => string[],
): Promise<Server> {
  const folder = await mkdtemp(join(tmpdir(), 'lacuna-nbd-'));
  const socket = join(folder, 'socket');
  const [program, ...args] = command(socket, folder);
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  await listening(child, socket);
  return {
    uri: `nbd+unix:///?socket=${socket}`,
    async stop() {
      const exited = once(child, 'exit');
      child.kill('SIGTERM');
      await exited;
      await rm(folder, { recursive: true });
    },
  };
}

async function listening(child: ChildProcess, socket: string): Promise<void> {
  for (let tries = 0; tries < 500; tries++) {
    if (existsSync(socket)) return;
    if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}`);
    await setTimeout(10);
  }
  throw new Error('the server does not listen');
}
