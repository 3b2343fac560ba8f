/** One client: the handshake, TLS where it is started, and the transmission, over one socket and one after another. */
import type { Socket } from 'node:net';
import type { TlsOptions } from 'node:tls';
import { LacunaError } from '../../../errors/index.js';
import { afterWaiting } from '../../../util/index.js';
import { type Conversation, Dialogue } from '../../stream/index.js';
import { ended } from '../failures/index.js';
import type { Entered, Offer, Outcome } from '../handshake/index.js';
import { negotiate, negotiateInTls } from '../handshake/index.js';
import type { MemoryBudget } from '../limits/index.js';
import { MAX_UNSENT_ANSWERS } from '../limits/index.js';
import { ServerSession, type SessionOptions } from '../session/index.js';
import { ServerTransport, startTls } from '../socket/index.js';
import { type NbdClientMessage, nextClient, tellClient } from './client-channel.js';
import type { ClientEvents, NbdConnection } from './host.js';

export interface ConnectionOptions extends SessionOptions {
  readonly offer: Offer;
  readonly tls: TlsOptions | undefined;
  readonly handshakeTimeoutMs: number;
  /** Of all clients of the server. */
  readonly budget: MemoryBudget;
}

export class ServerConnection implements NbdConnection {
  readonly #options: ConnectionOptions;
  readonly #events: ClientEvents;
  readonly #transport: ServerTransport;
  readonly #stopWaiting: () => void;
  #session: ServerSession | undefined;
  #exportName: string | undefined;
  readonly #accepted: Socket;
  /** What was told of it when it came. */
  #told: NbdClientMessage | undefined;

  constructor(accepted: Socket, options: ConnectionOptions, events: ClientEvents) {
    this.#options = options;
    this.#events = events;
    this.#accepted = accepted;
    // A new socket asks at once where its first bytes go, so what is said first has to wait for it.
    const greeting: Uint8Array[] = [];
    let say = (bytes: Uint8Array): void => void greeting.push(bytes);
    const dialogue = this.#dialogue(negotiate(options.offer), (bytes) => say(bytes));
    dialogue.start();
    this.#transport = new ServerTransport(accepted, dialogue, () => this.#closed());
    this.#stopWaiting = afterWaiting(options.handshakeTimeoutMs, () => this.#tooSlow());
    say = (bytes) => this.#say(bytes);
    for (const bytes of greeting) say(bytes);
  }

  get exportName(): string | undefined {
    return this.#exportName;
  }

  shutdown(): void {
    if (this.#session === undefined) this.destroy(ended('the server is shutting down'));
    else this.#session.shutdown();
  }

  destroy(failure: LacunaError): void {
    this.#transport.destroy(failure);
  }

  #dialogue(
    conversation: Conversation<Outcome>,
    send: (bytes: Uint8Array) => void,
  ): Dialogue<Outcome> {
    return new Dialogue(conversation, {
      send,
      done: (outcome) => this.#proceed(outcome),
      failed: (failure) => this.#transport.destroy(failure),
    });
  }

  /** A client that asks and asks, and takes no answer, is not listened to until it does. */
  #say(bytes: Uint8Array): void {
    const transport = this.#transport;
    transport.write(bytes);
    if (transport.unsent < MAX_UNSENT_ANSWERS) return;
    transport.pause();
    transport.whenSent(() => transport.resume());
  }

  #proceed(outcome: Outcome): void {
    if (outcome.type === 'transmission') this.#transmit(outcome.answer, outcome);
    else if (outcome.type === 'starttls') void this.#secure(outcome.zeroes);
    else this.#transport.end();
  }

  #transmit(answer: Uint8Array, entered: Entered): void {
    this.#stopWaiting();
    const account = this.#options.budget.open();
    if (account === undefined) {
      this.#events.crowded();
      return;
    }
    this.#exportName = entered.export.name;
    this.#events.entered();
    this.#transport.write(answer);
    const client = nextClient();
    const session = new ServerSession(this.#transport, entered, this.#options, account, client);
    this.#tellEntered(client, entered);
    this.#session = session;
    this.#transport.sink = session;
    this.#transport.onEnd = () => session.shutdown();
  }

  #tellEntered(client: number, { export: { name, device } }: Entered): void {
    const { remoteAddress, remotePort } = this.#accepted;
    const host = remoteAddress?.includes(':') ? `[${remoteAddress}]` : remoteAddress;
    const address = host === undefined ? {} : { address: `${host}:${remotePort}` };
    this.#told = { client, event: 'entered', export: name, device, ...address };
    tellClient(this.#told);
  }

  async #secure(zeroes: boolean): Promise<void> {
    const { tls, offer } = this.#options;
    const plain = await this.#transport.release();
    if (plain.destroyed) return;
    startTls(plain, tls!, {
      failed: (failure) => this.#transport.destroy(failure),
      secured: (socket) => {
        const dialogue = this.#dialogue(negotiateInTls(offer, zeroes), (bytes) => this.#say(bytes));
        dialogue.start();
        this.#transport.secured(socket, dialogue);
      },
    });
  }

  #tooSlow(): void {
    const seconds = this.#options.handshakeTimeoutMs / 1000;
    this.destroy(
      new LacunaError(
        'ERR_TIMEOUT',
        `the client did not complete the handshake within ${seconds} s`,
      ),
    );
  }

  #closed(): void {
    this.#stopWaiting();
    if (this.#told !== undefined) tellClient({ ...this.#told, event: 'left' });
    this.#events.closed(this.#transport.failure);
  }
}
