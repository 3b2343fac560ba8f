import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** An nbdkit on a private Unix socket, until it is stopped. */
export async function serve(
  args: readonly string[],
): Promise<{ uri: string; stop(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'lacuna-nbdkit-'));
  const [socket, pidfile] = [join(folder, 'socket'), join(folder, 'pid')];
  const server = spawn('nbdkit', ['-f', '-U', socket, '-P', pidfile, ...args], {
    stdio: 'inherit',
  });
  for (let tries = 0; !existsSync(pidfile); tries++) {
    if (tries > 500 || server.exitCode !== null)
      throw new Error(`nbdkit ${args.join(' ')} did not start`);
    await sleep(10);
  }
  return {
    uri: `nbd+unix:///?socket=${socket}`,
    stop: async () => {
      server.kill();
      if (server.exitCode === null) await once(server, 'exit');
      await rm(folder, { recursive: true, force: true });
    },
  };
}
