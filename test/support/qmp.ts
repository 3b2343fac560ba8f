import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

/** A peer makes its monitor in its own time, which may be later than what else it serves. */
const PATIENCE_MS = 120_000;

/** Just enough of a QMP client to steer a peer from a test: one command at a time, events dropped. */
export class QmpConnection {
  readonly #socket: Socket;
  readonly #lines: AsyncIterator<string>;

  static async open(path: string): Promise<QmpConnection> {
    const connection = new QmpConnection(await connected(path));
    await connection.#next();
    await connection.execute('qmp_capabilities');
    return connection;
  }

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#lines = createInterface({ input: socket })[Symbol.asyncIterator]();
  }

  async execute(execute: string, args: object = {}): Promise<unknown> {
    this.#socket.write(`${JSON.stringify({ execute, arguments: args })}\n`);
    for (;;) {
      const answer = await this.#next();
      if ('error' in answer) throw new Error(`${execute}: ${JSON.stringify(answer.error)}`);
      if ('return' in answer) return answer.return;
    }
  }

  async close(): Promise<void> {
    this.#socket.destroy();
  }

  async #next(): Promise<Record<string, unknown>> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error('the peer closed its monitor');
    return JSON.parse(value);
  }
}

async function connected(path: string): Promise<Socket> {
  const socket = connect({ path });
  for (const end = Date.now() + PATIENCE_MS; ; ) {
    try {
      await once(socket, 'connect');
      return socket;
    } catch (error) {
      if (Date.now() > end) throw error;
      await sleep(20);
      socket.connect({ path });
    }
  }
}
