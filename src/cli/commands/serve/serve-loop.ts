/** What serving a device and serving a restore point have in common: where clients come from, and until when. */
import type { NbdListenAddress } from '../../../serve/index.js';
import { type Shell, takeActivatedSockets } from '../../shell/index.js';

export interface ListenFlags {
  socket?: string;
  bind?: Exclude<NbdListenAddress, { type: 'fd' }>;
}

export function addressOf({ socket, bind }: ListenFlags): NbdListenAddress {
  if (socket !== undefined && bind !== undefined) {
    throw new TypeError('--socket and --bind exclude each other');
  }
  const sockets = takeActivatedSockets();
  if (sockets.length > 1) {
    throw new TypeError(`one socket can be handed over, not LISTEN_FDS=${sockets.length}`);
  }
  const [handed] = sockets;
  if (handed !== undefined) {
    if (socket === undefined && bind === undefined) return { type: 'fd', fd: handed.fd };
    throw new TypeError('a socket was handed over (LISTEN_FDS): leave out --socket and --bind');
  }
  if (socket !== undefined) return { type: 'unix', path: socket };
  return bind ?? { type: 'inet', host: 'localhost', port: 10809 };
}

/** Resolves when the user interrupts. */
export function interrupted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/** A client must not be able to fill the log of its server. */
const WARNING_EVERY_MS = 1000;

/** Tells of failures, now and then. */
export function warner(shell: Shell): (error: unknown) => void {
  let last = Number.NEGATIVE_INFINITY;
  let unsaid = 0;
  return (error) => {
    if (performance.now() - last < WARNING_EVERY_MS) {
      unsaid++;
      return;
    }
    const text = error instanceof Error ? error.message : String(error);
    const more = unsaid > 0 ? ` (and ${unsaid} more before)` : '';
    shell.note(`lacuna: warning: ${text}${more}\n`);
    last = performance.now();
    unsaid = 0;
  };
}
