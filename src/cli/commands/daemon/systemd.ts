/** What systemd is told, and what it hands over; see examples/lacuna-daemon.service. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { type ActivatedSocket, type Shell, takeActivatedSockets } from '../../shell/index.js';

const NOTIFY_MS = 10_000;

/** Tells systemd that clients may connect, where it waits for that. Node has no sockets of that kind, so its own program tells it. */
export async function tellSystemd(shell: Shell): Promise<void> {
  const { NOTIFY_SOCKET } = process.env;
  if (NOTIFY_SOCKET === undefined || NOTIFY_SOCKET === '') return;
  try {
    const args = ['--ready', `--pid=${process.pid}`];
    await promisify(execFile)('systemd-notify', args, { timeout: NOTIFY_MS });
  } catch (error) {
    const { stderr = '', message } = error as Error & { stderr?: string };
    const why = stderr.trim() || message;
    shell.note(
      `lacuna: warning: systemd could not be told that the daemon is ready (${why}): it ends a unit of Type=notify then; say Type=exec there, or install systemd-notify\n`,
    );
  }
}

/** Listening sockets that systemd has handed over, by what they are for. */
interface HandedSockets {
  readonly monitors: readonly number[];
  readonly nbd?: number;
}

/** @throws TypeError for names that say nothing. */
export function takeHandedSockets(): HandedSockets {
  const sockets = takeActivatedSockets();
  const of = (name: string) => sockets.filter((socket) => socket.name === name);
  const [nbd, ...more] = of('nbd');
  if (more.length > 0) throw new TypeError('several sockets were handed over for NBD: say one');
  const monitors = sockets.length === 1 && nbd === undefined ? sockets : of('qmp');
  const unknown = sockets.find((one) => one !== nbd && !monitors.includes(one));
  if (unknown !== undefined) throw new TypeError(unclear(unknown));
  return { monitors: monitors.map(({ fd }) => fd), ...(nbd !== undefined && { nbd: nbd.fd }) };
}

function unclear({ name }: ActivatedSocket): string {
  return `a socket was handed over as "${name}": say FileDescriptorName=qmp for a monitor, or nbd for the NBD server`;
}
