import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type NbdExportOptions, NbdServer, type NbdServerOptions } from 'lacuna/nbd';
import { expect, onTestFinished } from 'vitest';
import { concat } from './hostile-nbd-wire.js';

/** Our own server on a private Unix socket, with one export, until the test ends. */
export async function serveDevice(
  device: NbdExportOptions['device'],
  options: Partial<NbdServerOptions> & Partial<Omit<NbdExportOptions, 'device'>> = {},
): Promise<{ server: NbdServer; uri: string; path: string; folder: string }> {
  const { name = '', description, readOnly, bitmaps, ...rest } = options;
  const folder = await mkdtemp(join(tmpdir(), 'lacuna-'));
  const path = join(folder, 's');
  const exports = [{ name, description, readOnly, bitmaps, device }];
  const server = new NbdServer({ exports, ...rest });
  await server.listen({ type: 'unix', path });
  onTestFinished(async () => {
    await server.close({ timeoutMs: 100 });
    await rm(folder, { recursive: true, force: true });
  });
  return { server, uri: server.uri(name), path, folder };
}

/** Waits until every client is forgotten: that happens a little after it is gone. */
export async function emptied(server: NbdServer): Promise<void> {
  await expect.poll(() => server.connectionCount).toBe(0);
}

export interface Finished {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end, whatever that is. */
export function finish(
  program: string,
  args: readonly string[],
  { cwd }: { cwd?: string } = {},
): Promise<Finished> {
  return new Promise((resolve) => {
    const options = { maxBuffer: 2 ** 28, ...(cwd !== undefined && { cwd }) };
    execFile(program, args, options, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
      resolve({ code, stdout, stderr: stderr || (error?.message ?? '') });
    });
  });
}

/** The client's end of a raw connection, driven by a test step by step. */
export class RawClient {
  readonly socket: Socket;
  /** All that the server has sent and that was not taken. */
  received: Uint8Array = new Uint8Array(0);
  closed = false;
  #wake: () => void = () => {};

  constructor(path: string) {
    this.socket = connect({ path, allowHalfOpen: true });
    this.socket.on('data', (bytes) => {
      this.received = concat(this.received, bytes as Uint8Array);
      this.#wake();
    });
    this.socket.on('error', () => {});
    for (const event of ['close', 'end']) {
      this.socket.on(event, () => {
        this.closed = true;
        this.#wake();
      });
    }
  }

  send(...parts: readonly Uint8Array[]): void {
    this.socket.write(concat(...parts));
  }

  async take(count: number): Promise<Uint8Array> {
    while (this.received.length < count) {
      if (this.closed) throw new Error(`the server is gone; ${this.received.length} of ${count}`);
      await this.#event();
    }
    const bytes = this.received.slice(0, count);
    this.received = this.received.slice(count);
    return bytes;
  }

  /** Resolves when the server has closed. */
  async ended(): Promise<void> {
    while (!this.closed) await this.#event();
    this.socket.destroy();
  }

  #event(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }
}
