/** A process that was stopped for longer than its limits of time looks at its sockets before the clock. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { Option } from '#dist/nbd/wire/constants.js';
import { encodeInfoQuery, encodeOption } from '#dist/nbd/wire/options.js';
import { type HostileConnection, serveHostile } from '../../support/hostile-nbd.js';
import { dataChunk } from '../../support/hostile-nbd-wire.js';
import { RawClient } from '../../support/nbd-server.js';
import { usePeers } from '../../support/peers.js';

const peers = usePeers();
/** Longer than a busy machine keeps a process waiting for a processor. */
const LIMIT_MS = 3000;
const STOPPED_MS = 4500;

/** Another process of Node that runs a script with what is handed to it in `given`. */
function start(script: string, given: unknown) {
  const text = `const given = ${JSON.stringify(given)};\n${script}`;
  const args = ['--input-type=module', '-e', text];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  let said = '';
  child.stdout.on('data', (bytes) => {
    said += bytes;
  });
  return {
    async line(): Promise<string> {
      while (!said.includes('\n')) await once(child.stdout, 'data');
      const [line] = said.split('\n');
      said = said.slice(line.length + 1);
      return line;
    },
    /** Stops it for longer than it waits for anybody; `meanwhile` happens while it is stopped. */
    async stopped(meanwhile: () => void): Promise<void> {
      child.kill('SIGSTOP');
      const state = () => readFileSync(`/proc/${child.pid}/stat`, 'latin1').split(') ')[1][0];
      while (state() !== 'T') {
        if (state() === 'Z') throw new Error(`it has ended, and said "${said}"`);
        await sleep(5);
      }
      meanwhile();
      // A timer counts from when a busy event loop last looked at the clock, and may come seconds early.
      const since = performance.now();
      while (performance.now() - since < STOPPED_MS) await sleep(50);
      child.kill('SIGCONT');
    },
  };
}

function signalled<T>() {
  let resolve: (value: T) => void = () => {};
  const promise = new Promise<T>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}

/** It is stopped while it computes, so that its timers come first when it goes on. */
const CLIENT = `
  import { writeSync } from 'node:fs';
  import { NbdClient } from 'lacuna/nbd';
  const compute = () => {
    // Before the line, for it may be stopped as soon as the line is out.
    let last = performance.now();
    const end = last + 300_000;
    writeSync(1, 'computes\\n');
    for (let now = last; now - last < ${LIMIT_MS} && now < end; now = performance.now()) last = now;
  };
  // What follows an immediate is the next turn of the event loop, which begins with the timers.
  setTimeout(() => setImmediate(compute), 100);
  try {
    const client = await NbdClient.connect(given);
    const bytes = new Uint8Array(4);
    await client.read(0, bytes);
    console.log('read ' + bytes);
  } catch (error) {
    console.log(error.code + ' ' + error.message);
  }
  process.exit();`;

test('a client takes the answer that came while it was stopped', async () => {
  const asked = signalled<() => void>();
  const server = await serveHostile(async (connection) => {
    await connection.negotiate();
    const request = await connection.request();
    asked.resolve(() => connection.send(dataChunk(request, 0, Uint8Array.of(1, 2, 3, 4))));
  });
  const client = start(CLIENT, { server, requestTimeoutMs: LIMIT_MS });
  const answer = await asked.promise;
  expect(await client.line()).toBe('computes');
  await client.stopped(answer);
  expect(await client.line()).toBe('read 1,2,3,4');
});

test('a client goes on with a handshake in which it was stopped', async () => {
  const met = signalled<HostileConnection>();
  const server = await serveHostile(met.resolve);
  const client = start(CLIENT, { server, connectTimeoutMs: LIMIT_MS });
  const connection = await met.promise;
  expect(await client.line()).toBe('computes');
  await client.stopped(() => {
    void (async () => {
      await connection.negotiate();
      const request = await connection.request();
      connection.send(dataChunk(request, 0, Uint8Array.of(1, 2, 3, 4)));
    })();
  });
  expect(await client.line()).toBe('read 1,2,3,4');
});

test('a server takes what its client said while it was stopped', async () => {
  const path = `${await peers.folder()}/stopped.sock`;
  const server = start(
    `
    import { openDevice } from 'lacuna';
    import { NbdServer } from 'lacuna/nbd';
    const device = await openDevice({ driver: 'memory', size: 4096 });
    const server = new NbdServer({ exports: [{ name: '', device }], handshakeTimeoutMs: given.limitMs });
    await server.listen({ type: 'unix', path: given.path });
    console.log('listens');`,
    { path, limitMs: LIMIT_MS },
  );
  expect(await server.line()).toBe('listens');
  const client = new RawClient(path);
  await client.take(18);
  await server.stopped(() => {
    client.send(Uint8Array.of(0, 0, 0, 3), encodeOption(Option.go, encodeInfoQuery('', [])));
  });
  const reply = new DataView((await client.take(20)).buffer);
  expect([reply.getUint32(8), reply.getUint32(12)]).toEqual([Option.go, 3]);
  client.socket.destroy();
});
