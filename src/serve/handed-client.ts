import { closeSync } from 'node:fs';
import type { Socket } from 'node:net';
import { type LacunaError, toWire } from '../errors/index.js';
import type { ClientEvents, NbdConnection, NbdHost } from '../nbd/server/index.js';
import type { ToThread } from './messages.js';

export interface Handover {
  readonly id: number;
  /** The client, as it was let in; open until the thread has taken it over, so that it can be given back. */
  readonly socket: Socket;
  /** A copy of its file descriptor for the thread. */
  readonly fd: number;
  readonly events: ClientEvents;
  tell(message: ToThread): void;
}

/** A client that another thread serves, or is about to. */
export class HandedClient implements NbdConnection {
  readonly #handover: Handover;
  #taken = false;
  #closing = false;
  #gone = false;
  /** Who serves it, since the thread could not. */
  #givenBack: NbdConnection | undefined;

  constructor(handover: Handover) {
    this.#handover = handover;
    handover.tell({ type: 'accept', id: handover.id, fd: handover.fd });
  }

  shutdown(): void {
    this.#closing = true;
    if (this.#givenBack !== undefined) this.#givenBack.shutdown();
    else this.#handover.tell({ type: 'shutdown', id: this.#handover.id });
  }

  destroy(failure: LacunaError): void {
    if (this.#givenBack !== undefined) {
      this.#givenBack.destroy(failure);
      return;
    }
    this.#handover.tell({ type: 'destroy', id: this.#handover.id, failure: toWire(failure) });
    this.ended(failure);
  }

  /** The thread has it: what this thread holds of it is not needed any more. */
  taken(): void {
    this.#taken = true;
    this.#handover.socket.destroy();
  }

  entered(): void {
    if (!this.#gone) this.#handover.events.entered();
  }

  crowded(): void {
    if (!this.#gone) this.#handover.events.crowded();
  }

  ended(failure: unknown): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#handover.socket.destroy();
    this.#handover.events.closed(failure);
  }

  /** The thread is no more: a client that it had is lost with it, one that it never had is served by `own`. */
  lost(failure: LacunaError, own: NbdHost): void {
    if (!this.#taken) closeSync(this.#handover.fd);
    if (this.#gone) return;
    if (this.#taken || this.#closing) this.ended(failure);
    else this.#givenBack = own.accept(this.#handover.socket, this.#handover.events);
  }
}
