import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { enlargeSendBuffer } from '#dist/nbd/server/socket/send-buffer.js';
import { loadKoffi } from '#dist/util/index.js';

// The tests run where it can be installed, and fail where it was not.
const koffi = loadKoffi()!;

const closers: Array<() => unknown> = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function listening(where: { path: string } | { host: string; port: number }) {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(where, resolve));
  closers.push(() => new Promise((resolve) => server.close(resolve)));
  return server;
}

/** Both ends of a connection: the one that was accepted, and its file descriptor. */
async function accepted(server: Server): Promise<{ socket: Socket; fd: number }> {
  const arrival = new Promise<Socket>((resolve) => server.once('connection', resolve));
  const address = server.address();
  const client =
    typeof address === 'string' ? connect(address) : connect(address!.port, address!.address);
  const socket = await arrival;
  closers.push(() => {
    client.destroy();
    socket.destroy();
  });
  const { _handle } = socket as unknown as { _handle: { fd: number } };
  return { socket, fd: _handle.fd };
}

function sendBufferOf(fd: number): number {
  const value = new Int32Array(1);
  const getsockopt = koffi.load(null).func('int getsockopt(int, int, int, void *, void *)');
  expect(getsockopt(fd, 1, 7, value, new Uint32Array([4]))).toBe(0);
  return value[0];
}

describe('the send buffer', () => {
  test('of a Unix socket grows', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'lacuna-send-buffer-'));
    closers.push(() => rm(folder, { recursive: true }));
    const { socket, fd } = await accepted(await listening({ path: join(folder, 'socket') }));
    const before = sendBufferOf(fd);
    enlargeSendBuffer(socket);
    expect(sendBufferOf(fd)).toBeGreaterThan(before);
  });

  test('of a TCP socket is left to the system', async () => {
    const { socket, fd } = await accepted(await listening({ host: '127.0.0.1', port: 0 }));
    const before = sendBufferOf(fd);
    enlargeSendBuffer(socket);
    expect(sendBufferOf(fd)).toBe(before);
  });

  test('of a socket that is closed does not matter', async () => {
    const { socket } = await accepted(await listening({ host: '127.0.0.1', port: 0 }));
    socket.destroy();
    expect(() => enlargeSendBuffer(socket)).not.toThrow();
  });
});
