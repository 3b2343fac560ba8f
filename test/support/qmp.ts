import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

/** Just enough of a QMP client to steer a peer from a test: one command at a time, events dropped. */
export class QmpConnection {
  readonly #socket: Socket;
  readonly #lines: AsyncIterator<string>;

  static async open(path: string): Promise<QmpConnection> {
    const connection = new QmpConnection(connect({ path }));
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
