import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';

export const GREETING = `${JSON.stringify({
  QMP: {
    version: { qemu: { major: 7, minor: 2, micro: 22 }, package: 'scripted' },
    capabilities: ['oob'],
  },
})}\n`;

/** What a client sent, as far as a script looks at it. */
export interface Sent {
  readonly execute?: string;
  readonly 'exec-oob'?: string;
  readonly arguments?: Record<string, unknown>;
  readonly id?: number;
}

/** Says what to answer to a command; nothing for silence. */
export type Answer = (command: Sent, socket: Socket) => string | Uint8Array | undefined;

/** A peer on a Unix socket that does whatever a test says, and ends with the test. */
export class ScriptedPeer {
  readonly address: { path: string };
  /** Everything that was sent, over all connections. */
  readonly commands: Sent[] = [];
  connections = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  static async start(
    connected: (socket: Socket, peer: ScriptedPeer) => void,
  ): Promise<ScriptedPeer> {
    const folder = await mkdtemp(join(tmpdir(), 'lacuna-'));
    const peer = new ScriptedPeer(join(folder, 's'), connected);
    onTestFinished(async () => {
      peer.stop();
      await rm(folder, { recursive: true });
    });
    peer.#server.listen(peer.address.path);
    await once(peer.#server, 'listening');
    return peer;
  }

  /** One that greets, agrees to capabilities, and answers the rest as it is told. */
  static monitor(answer: Answer, greeting: string | Uint8Array = GREETING): Promise<ScriptedPeer> {
    return ScriptedPeer.start((socket, peer) => {
      socket.write(greeting);
      peer.converse(socket, (command, from) =>
        command.execute === 'qmp_capabilities' ? returned(command) : answer(command, from),
      );
    });
  }

  private constructor(path: string, connected: (socket: Socket, peer: ScriptedPeer) => void) {
    this.address = { path };
    this.#server = createServer((socket) => {
      this.connections++;
      this.#sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => this.#sockets.delete(socket));
      connected(socket, this);
    });
  }

  /** Answers what comes over a connection, a command at a time. */
  converse(socket: Socket, answer: Answer): void {
    let text = '';
    socket.setEncoding('latin1');
    socket.on('data', (piece) => {
      text += piece;
      const lines = text.split('\n');
      text = lines.pop()!;
      for (const line of lines) {
        const command = JSON.parse(line.replace(/^\xff/, '')) as Sent;
        this.commands.push(command);
        const said = answer(command, socket);
        if (said !== undefined) socket.write(said);
      }
    });
  }

  /** Says something over every connection. */
  say(text: string | Uint8Array): void {
    for (const socket of this.#sockets) socket.write(text);
  }

  hangUp(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  stop(): void {
    this.hangUp();
    this.#server.close();
  }
}

/** A good answer to a command. */
export function returned(command: Sent, value: unknown = {}): string {
  return `${JSON.stringify({ return: value, id: command.id })}\n`;
}
