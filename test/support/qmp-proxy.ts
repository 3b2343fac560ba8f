import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { createInterface, type Interface } from 'node:readline';

/** A command on its way to QEMU. */
export interface PassingCommand {
  readonly name: string;
  /** How many have passed before it since the proxy was started, or reset. */
  readonly index: number;
}

/** Called between every two commands; what throws cuts the connection to the client. */
export interface ProxyHooks {
  /** Before QEMU gets the command. */
  before?: (command: PassingCommand) => Promise<void> | void;
  /** When QEMU has answered, before the client gets the answer. */
  after?: (command: PassingCommand) => Promise<void> | void;
}

interface Line {
  readonly text: string;
  readonly name: string;
  readonly id: unknown;
}

/** Stands between a client and a monitor, and lets a test act between every two commands. */
export class QmpProxy {
  readonly path: string;
  hooks: ProxyHooks = {};
  /** Names of the commands that were passed on, in order. */
  readonly passed: string[] = [];
  readonly #monitor: string;
  readonly #sockets = new Set<Socket>();
  readonly #server = createServer((client) => this.#serve(client));

  static async start(monitor: string): Promise<QmpProxy> {
    const proxy = new QmpProxy(monitor);
    proxy.#server.listen(proxy.path);
    await once(proxy.#server, 'listening');
    return proxy;
  }

  private constructor(monitor: string) {
    this.#monitor = monitor;
    this.path = `${monitor}.proxy`;
    rmSync(this.path, { force: true });
  }

  /** Counts from 0 again. */
  reset(hooks: ProxyHooks = {}): void {
    this.hooks = hooks;
    this.passed.length = 0;
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async stop(): Promise<void> {
    this.cut();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #serve(client: Socket): void {
    const qemu = connect({ path: this.#monitor });
    const answers = new Map<unknown, (text: string) => void>();
    const cut = () => {
      client.destroy();
      qemu.destroy();
    };
    for (const socket of [client, qemu]) {
      this.#sockets.add(socket);
      socket.on('error', cut);
      socket.on('close', () => {
        this.#sockets.delete(socket);
        cut();
      });
    }
    linesOf(qemu).on('line', (text) => {
      const { id } = JSON.parse(text) as { id?: unknown };
      const answered = answers.get(id);
      answers.delete(id);
      if (answered === undefined) client.write(`${text}\n`);
      else answered(text);
    });
    let last: Promise<void> = Promise.resolve();
    linesOf(client).on('line', (text) => {
      const { execute: name, id } = JSON.parse(text) as { execute: string; id: unknown };
      const answer = () =>
        new Promise<string>((resolve) => {
          answers.set(id, resolve);
          qemu.write(`${text}\n`);
        });
      last = last.then(() => this.#pass({ text, name, id }, answer, client)).catch(cut);
    });
  }

  async #pass({ name }: Line, answer: () => Promise<string>, client: Socket): Promise<void> {
    // A handshake is no step of a backup.
    const command = { name, index: this.passed.length };
    const isStep = name !== 'qmp_capabilities';
    if (isStep) {
      await this.hooks.before?.(command);
      this.passed.push(name);
    }
    const text = await answer();
    if (isStep) await this.hooks.after?.(command);
    client.write(`${text}\n`);
  }
}

/** A socket's own errors are told by the socket. */
function linesOf(socket: Socket): Interface {
  return createInterface({ input: socket }).on('error', () => {});
}
