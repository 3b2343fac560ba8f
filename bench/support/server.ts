import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

export interface RunningServer {
  stop(): Promise<void>;
}

/** Starts a program that will listen on a Unix socket, and waits until it lets clients in. */
export async function startServer(
  program: string,
  args: readonly string[],
  socket: string,
): Promise<RunningServer> {
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  for (let tries = 0; !(await accepts(socket)); tries++) {
    if (tries > 500 || child.exitCode !== null) throw new Error(`${program} does not listen`);
    await sleep(20);
  }
  return {
    stop: async () => {
      child.kill();
      if (child.exitCode === null) await once(child, 'exit');
    },
  };
}

function accepts(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once('error', () => resolve(false));
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
  });
}
