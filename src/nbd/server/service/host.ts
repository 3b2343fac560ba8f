import type { Socket } from 'node:net';
import type { LacunaError } from '../../../errors/index.js';
import type { ServerKeys } from '../socket/index.js';

/** One client, as the server that let it in sees it. */
export interface NbdConnection {
  /** The export that it has entered; undefined before that, and where another thread serves it. */
  readonly exportName?: string | undefined;
  /** Answers what the client has asked, then closes; a client that is still in the handshake just closes. */
  shutdown(): void;
  /** Closes at once. */
  destroy(failure: LacunaError): void;
}

/** What a server hears of a client that it has let in. */
export interface ClientEvents {
  /** The handshake is done, and an export is entered. */
  entered(): void;
  /** The handshake is done, but there is no place for one more: it must be ended. */
  crowded(): void;
  /** Called once, when the client is gone, with the reason. */
  closed(failure: unknown): void;
}

/** Serves the clients that a server has let in: the service of its own thread, or of another one. */
export interface NbdHost {
  /** Clients that it serves; Infinity where it takes none. */
  readonly connectionCount: number;
  /** Called once, before the first client: what TLS needs, if it is offered. */
  start(keys: ServerKeys | undefined): void;
  /**
   * Serves a client.
   *
   * @param socket nothing of it was read: its server has `pauseOnConnect`, and `allowHalfOpen`
   */
  accept(socket: Socket, events: ClientEvents): NbdConnection;
  /** Gives back what it holds, once its clients are gone. */
  close(): Promise<void>;
}
