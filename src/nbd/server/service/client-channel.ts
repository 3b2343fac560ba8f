/** Publishes when clients connect and leave: `node:diagnostics_channel`, see docs/diagnostics.md. */
import { channel } from 'node:diagnostics_channel';
import type { NbdExportDevice } from '../export/index.js';

/** The message of the channel `lacuna:nbd-server:client`: a client that has entered an export, or has left it. */
export interface NbdClientMessage {
  /** Unique in this thread, as long as it lives. */
  readonly client: number;
  /** Whether it has come or gone. */
  readonly event: 'entered' | 'left';
  /** The name of the export. */
  readonly export: string;
  /** What is served there. */
  readonly device: NbdExportDevice;
  /** Its IP address and port; absent where it came through a Unix socket. */
  readonly address?: string;
}

const clients = channel('lacuna:nbd-server:client');
let last = 0;

/** The number of a new client. */
export function nextClient(): number {
  last++;
  return last;
}

export function tellClient(message: NbdClientMessage): void {
  if (clients.hasSubscribers) clients.publish(message);
}
