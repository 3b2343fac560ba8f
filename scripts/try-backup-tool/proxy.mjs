// Stands between a backup tool and the monitor of a QEMU, and lets somebody act before each command.
import { once } from 'node:events';
import { connect, createServer } from 'node:net';

/** Cuts a stream into its JSON objects, whatever white space lies between them. */
export class Objects {
  #text = '';
  #depth = 0;
  #at = 0;
  #isString = false;
  #isEscaped = false;

  *take(more) {
    this.#text += more;
    for (; this.#at < this.#text.length; this.#at++) {
      const character = this.#text[this.#at];
      if (this.#isString) {
        if (this.#isEscaped) this.#isEscaped = false;
        else if (character === '\\') this.#isEscaped = true;
        else if (character === '"') this.#isString = false;
        continue;
      }
      if (character === '"') this.#isString = true;
      else if (character === '{') this.#depth++;
      else if (character === '}' && --this.#depth === 0) {
        yield this.#text.slice(0, this.#at + 1).trim();
        this.#text = this.#text.slice(this.#at + 1);
        this.#at = -1;
      }
    }
  }
}

export class QmpProxy {
  /** Called with the name of each command before QEMU gets it. */
  before = async () => {};
  #sockets = new Set();
  #server;

  static async start(path, monitor) {
    const proxy = new QmpProxy();
    proxy.#server = createServer((client) => proxy.#serve(client, connect({ path: monitor })));
    proxy.#server.listen(path);
    await once(proxy.#server, 'listening');
    return proxy;
  }

  stop() {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }

  #serve(client, qemu) {
    const cut = () => {
      client.destroy();
      qemu.destroy();
    };
    for (const socket of [client, qemu]) {
      this.#sockets.add(socket);
      socket.setEncoding('utf8').on('error', cut).on('close', cut);
      socket.on('close', () => this.#sockets.delete(socket));
    }
    let answered;
    const answers = new Objects();
    qemu.on('data', (more) => {
      for (const text of answers.take(more)) {
        client.write(`${text}\n`);
        const message = JSON.parse(text);
        if (message.event === undefined && message.QMP === undefined) answered?.();
      }
    });
    const commands = new Objects();
    let last = Promise.resolve();
    client.on('data', (more) => {
      for (const text of commands.take(more)) {
        last = last.then(async () => {
          const { execute } = JSON.parse(text);
          if (execute !== 'qmp_capabilities') await this.before(execute);
          // One after another: answers need not say whose they are.
          await new Promise((resolve) => {
            answered = resolve;
            qemu.write(`${text}\n`);
          });
        });
        last.catch(cut);
      }
    });
  }
}
