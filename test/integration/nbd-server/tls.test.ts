/** Our server in TLS, under other people's clients. */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import type { LacunaError } from 'lacuna/errors';
import { NbdServer, type NbdServerTls } from 'lacuna/nbd';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Option } from '#dist/nbd/wire/constants.js';
import { encodeInfoQuery, encodeOption } from '#dist/nbd/wire/options.js';
import { makeCertificates } from '../../support/certificates.js';
import { fakeDevice, pattern } from '../../support/fake-device.js';
import { numbers } from '../../support/hostile-nbd-wire.js';
import { emptied, finish, RawClient, serveDevice } from '../../support/nbd-server.js';
import { turns } from '../../support/turns.js';
import { extendedRequest } from '../../unit/nbd/server-harness.js';

const MiB = 1024 * 1024;
const SECRET = '00112233445566778899aabbccddeeff';
let folder = '';

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lacuna-'));
  await makeCertificates(folder);
  await writeFile(join(folder, 'keys.psk'), `alice:${SECRET}\n`);
  await writeFile(join(folder, 'wrong.psk'), `alice:${SECRET.replace('00', 'ff')}\n`);
  await writeFile(join(folder, 'stranger.psk'), `mallory:${SECRET}\n`);
});

afterAll(() => rm(folder, { recursive: true, force: true }));

const pem = (name: string) => readFileSync(join(folder, `${name}.pem`), 'utf8');
const x509 = (ca = false): NbdServerTls => ({
  type: 'x509',
  cert: pem('server-cert'),
  key: pem('server-key'),
  ...(ca && { ca: pem('ca-cert') }),
});
const psk: NbdServerTls = { type: 'psk', username: 'alice', key: SECRET };

const certified = (path: string, certificates = folder) =>
  `nbds+unix://localhost/?socket=${path}&tls-certificates=${certificates}`;
const shared = (path: string, file = 'keys.psk') =>
  `nbds+unix://alice@/?socket=${path}&tls-psk-file=${join(folder, file)}`;

async function serveTls(
  tls: NbdServerTls,
  options: { handshakeTimeoutMs?: number; maxConnections?: number } = {},
) {
  const refused: LacunaError[] = [];
  const device = fakeDevice(8 * MiB);
  await device.write(MiB, pattern(2 * MiB));
  const onRefused = (error: LacunaError) => refused.push(error);
  const served = await serveDevice(device, { tls, onRefused, ...options });
  return { ...served, refused, device };
}

describe.each([
  ['certificates', () => x509(), certified],
  ['a shared secret', () => psk, shared],
] as const)('with %s', (_, tls, uriOf) => {
  test('nbdinfo and nbdcopy are served', async () => {
    const { path, uri, server } = await serveTls(tls());
    expect(uri).toMatch(/^nbds\+unix:/);
    const { stdout, code } = await finish('nbdinfo', ['--json', uriOf(path)]);
    expect([code, JSON.parse(stdout).TLS]).toEqual([0, true]);
    const [back, again] = [join(folder, 'back.raw'), join(folder, 'again.raw')];
    const to = await finish('nbdcopy', ['--connections=4', uriOf(path), back]);
    expect(to).toMatchObject({ code: 0 });
    expect(await finish('nbdcopy', ['--flush', back, uriOf(path)])).toMatchObject({ code: 0 });
    await finish('nbdcopy', ['--request-size=33554432', '--no-extents', uriOf(path), again]);
    expect(Buffer.compare(await readFile(again), await readFile(back))).toBe(0);
    expect((await readFile(back)).subarray(MiB, 3 * MiB).equals(pattern(2 * MiB))).toBe(true);
    await emptied(server);
  });

  test('a client without TLS is told nothing', async () => {
    const { path } = await serveTls(tls());
    const plain = await finish('nbdinfo', ['--list', `nbd+unix:///?socket=${path}`]);
    expect(plain.code).not.toBe(0);
    expect(plain.stdout).not.toContain('export');
  });

  test('where TLS is only offered, both are served', async () => {
    const { path, uri } = await serveTls({ ...tls(), mode: 'on' });
    expect(uri).toMatch(/^nbd\+unix:/);
    expect((await finish('nbdinfo', [uri])).stdout).toContain('without TLS');
    expect((await finish('nbdinfo', [uriOf(path)])).stdout).toContain('with TLS');
  });
});

test('qemu-img is served with certificates and with a shared secret', async () => {
  const image = (path: string, creds: string) => [
    'info',
    '--output=json',
    '--object',
    creds,
    '--image-opts',
    `driver=nbd,server.type=unix,server.path=${path},tls-creds=t,tls-hostname=localhost`,
  ];
  const pki = `tls-creds-x509,id=t,endpoint=client,dir=${folder},verify-peer=yes`;
  const first = await serveTls(x509());
  const withCertificates = await finish('qemu-img', image(first.path, pki));
  expect(withCertificates).toMatchObject({ code: 0 });
  expect(JSON.parse(withCertificates.stdout)['virtual-size']).toBe(8 * MiB);
  const second = await serveTls(psk);
  const keys = await mkdtemp(join(folder, 'keys-'));
  await copyFile(join(folder, 'keys.psk'), join(keys, 'keys.psk'));
  const secret = `tls-creds-psk,id=t,endpoint=client,dir=${keys},username=alice`;
  expect(await finish('qemu-img', image(second.path, secret))).toMatchObject({ code: 0 });
});

test('a wrong secret and an unknown name are kept out', async () => {
  const { path, server } = await serveTls(psk);
  for (const file of ['wrong.psk', 'stranger.psk']) {
    const uri = shared(path, file).replace('alice', file === 'wrong.psk' ? 'alice' : 'mallory');
    expect((await finish('nbdinfo', [uri])).code).not.toBe(0);
  }
  expect((await finish('nbdinfo', [shared(path)])).code).toBe(0);
  await emptied(server);
});

test('with an authority, only clients with a certificate of it are let in', async () => {
  const { path, server } = await serveTls(x509(true));
  const bare = await mkdtemp(join(folder, 'bare-'));
  await copyFile(join(folder, 'ca-cert.pem'), join(bare, 'ca-cert.pem'));
  expect((await finish('nbdinfo', [certified(path, bare)])).code).not.toBe(0);
  expect((await finish('nbdinfo', [certified(path)])).code).toBe(0);
  const stranger = await mkdtemp(join(folder, 'stranger-'));
  await makeCertificates(stranger);
  await copyFile(join(folder, 'ca-cert.pem'), join(stranger, 'ca-cert.pem'));
  expect((await finish('nbdinfo', [certified(path, stranger)])).code).not.toBe(0);
  await emptied(server);
});

interface Secured {
  readonly tls: TLSSocket;
  /** Bytes that have arrived. */
  received(): number;
}

async function startTls(path: string): Promise<Secured> {
  const raw = new RawClient(path);
  raw.send(numbers([4, 3]), encodeOption(Option.startTls));
  await raw.take(18 + 20);
  raw.socket.removeAllListeners('data');
  const tls = connectTls({ socket: raw.socket, ca: pem('ca-cert'), servername: 'localhost' });
  tls.on('error', () => {});
  let received = 0;
  tls.on('data', (bytes: Buffer) => {
    received += bytes.length;
  });
  return { tls, received: () => received };
}

/** A session in TLS, up to GO, with extended headers; what was received so far is not counted. */
async function entered(path: string): Promise<Secured> {
  const { tls, received } = await startTls(path);
  tls.write(encodeOption(Option.extendedHeaders));
  tls.write(encodeOption(Option.go, encodeInfoQuery('', [])));
  const answers = 20 + 32 + 34 + 20;
  await expect.poll(received).toBeGreaterThanOrEqual(answers);
  return { tls, received: () => received() - answers };
}

test('a client that takes no answers waits, and its requests are all answered when it does', async () => {
  const { path } = await serveTls(x509());
  const { tls, received } = await entered(path);
  tls.pause();
  // More requests than are held while they wait, so that some wait in the middle of a record.
  const [count, length] = [6000, 4096];
  const requests = Array.from({ length: count }, (_, cookie) =>
    extendedRequest(0, { cookie, flags: 4, offset: MiB, length }),
  );
  tls.write(Buffer.concat(requests));
  await turns(500);
  const whole = count * (32 + 8 + length);
  expect(received()).toBeLessThan(whole);
  tls.resume();
  await expect.poll(received).toBe(whole);
  tls.destroy();
});

test('a flood of options in one TLS record, whose answers nobody takes, costs bounded memory', async () => {
  const device = fakeDevice(MiB);
  const description = 'd'.repeat(4096);
  const exports = Array.from({ length: 100 }, (_, i) => ({ name: `${i}`, description, device }));
  const { path } = await serveDevice(device, { tls: x509(), exports, name: '0' });
  const { tls } = await startTls(path);
  tls.pause();
  const before = process.memoryUsage().arrayBuffers;
  tls.write(Buffer.concat(Array.from({ length: 1000 }, () => encodeOption(Option.list))));
  await turns(2000);
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(32 * MiB);
  tls.destroy();
});

test('a client that vanishes, with or without a goodbye, is forgotten', async () => {
  const { path, server } = await serveTls(x509());
  const clients = await Promise.all([entered(path), entered(path), entered(path)]);
  expect(server.connectionCount).toBe(3);
  clients[0].tls.end();
  clients[1].tls.destroy();
  clients[2].tls.write(Buffer.alloc(100));
  await emptied(server);
});

test('a failure of TLS itself ends that connection only', async () => {
  const { path, server, refused } = await serveTls(x509(), { handshakeTimeoutMs: 600_000 });
  for (let round = 0; round < 20; round++) {
    const client = new RawClient(path);
    client.send(numbers([4, 3]), encodeOption(Option.startTls));
    await client.take(18 + 20);
    client.send(Buffer.from([0x16, 3, 1, 0, round, ...pattern(round)]));
    client.socket.end();
  }
  await emptied(server);
  expect((await finish('nbdinfo', [certified(path)])).code).toBe(0);
  // Half a message and no more is a client that has left.
  expect(refused).toEqual([]);
});

test('options that cannot work are misuse, found at once', () => {
  const device = fakeDevice(MiB);
  const make = (tls: NbdServerTls) => () => new NbdServer({ exports: [{ name: '', device }], tls });
  expect(make({ type: 'x509' })).toThrow(TypeError);
  expect(make({ type: 'x509', key: pem('server-key') })).toThrow(TypeError);
  expect(make({ ...x509(), 'verify-peer': true } as NbdServerTls)).toThrow(TypeError);
  expect(make({ type: 'psk' })).toThrow(TypeError);
  expect(make({ type: 'psk', key: SECRET })).toThrow(TypeError);
  expect(make({ type: 'psk', 'psk-file': '/nowhere' })).not.toThrow();
});

test.each<[string, () => NbdServerTls]>([
  ['rubbish for a certificate', () => ({ type: 'x509', cert: 'x', key: 'y' })],
  ['a folder that is not there', () => ({ type: 'x509', certificates: '/nowhere' })],
  ['a file of keys that is not there', () => ({ type: 'psk', 'psk-file': '/nowhere' })],
  ['a file without a key', () => ({ type: 'psk', 'psk-file': '/dev/null' })],
  ['a key that is no number', () => ({ type: 'psk', username: 'alice', key: 'secret' })],
])('a server does not listen with %s', async (_, tls) => {
  const server = new NbdServer({ exports: [{ name: '', device: fakeDevice(MiB) }], tls: tls() });
  const listening = server.listen({ type: 'unix', path: join(folder, 'never') });
  await expect(listening).rejects.toMatchObject({ code: 'ERR_NBD_TLS' });
  await expect(listening).rejects.not.toThrow(/secret/);
  await server.close();
});

test('a server takes the same folder of certificates, and the same file of keys, as a client', async () => {
  const both = await serveTls({ type: 'x509', certificates: folder });
  // The folder has an authority, so a client must show a certificate; its own is in the same folder.
  expect((await finish('nbdinfo', [certified(both.path)])).code).toBe(0);
  const bare = await mkdtemp(join(tmpdir(), 'lacuna-'));
  await copyFile(join(folder, 'ca-cert.pem'), join(bare, 'ca-cert.pem'));
  expect((await finish('nbdinfo', [certified(both.path, bare)])).code).toBe(1);
  const open = await serveTls({ type: 'x509', certificates: folder, 'verify-peer': false });
  expect((await finish('nbdinfo', [certified(open.path, bare)])).code).toBe(0);
  await rm(bare, { recursive: true });
  const keys = await serveTls({ type: 'psk', 'psk-file': join(folder, 'keys.psk') });
  expect((await finish('nbdinfo', [shared(keys.path)])).code).toBe(0);
  expect((await finish('nbdinfo', [shared(keys.path, 'stranger.psk')])).code).toBe(1);
});

describe('a client that leaves is forgotten at once', () => {
  const PATIENT = { handshakeTimeoutMs: 600_000 };
  /** The beginning of a ClientHello. */
  const HELLO = Uint8Array.of(22, 3, 1, 2, 0, 1, 0);

  const phases: readonly [string, (path: string) => Promise<{ end(): void; destroy(): void }>][] = [
    ['says nothing', async (path) => (await greeted(path)).socket],
    ['has said its flags', async (path) => (await greeted(path, numbers([4, 3]))).socket],
    [
      'is within an option',
      async (path) =>
        (await greeted(path, numbers([4, 3]), encodeOption(Option.startTls).subarray(0, 9))).socket,
    ],
    ['may start TLS', async (path) => (await mayStart(path)).socket],
    [
      'is within the first message of TLS',
      async (path) => {
        const raw = await mayStart(path);
        raw.send(HELLO);
        return raw.socket;
      },
    ],
    ['has TLS', async (path) => (await secured(path)).tls],
    [
      'is within an option in TLS',
      async (path) => {
        const { tls } = await secured(path);
        tls.write(encodeOption(Option.go).subarray(0, 9));
        return tls;
      },
    ],
    ['has entered an export', async (path) => (await entered(path)).tls],
    [
      'is within a write',
      async (path) => {
        const { tls } = await entered(path);
        const payload = new Uint8Array(100_000);
        tls.write(extendedRequest(1, { flags: 32, payload }).subarray(0, 50_000));
        return tls;
      },
    ],
  ];

  async function greeted(path: string, ...bytes: Uint8Array[]): Promise<RawClient> {
    const raw = new RawClient(path);
    raw.send(...bytes);
    await raw.take(18);
    return raw;
  }

  async function mayStart(path: string): Promise<RawClient> {
    const raw = await greeted(path, numbers([4, 3]), encodeOption(Option.startTls));
    await raw.take(20);
    return raw;
  }

  async function secured(path: string): Promise<Secured> {
    const session = await startTls(path);
    await once(session.tls, 'secureConnect');
    return session;
  }

  for (const [phase, open] of phases) {
    test.each(['end', 'destroy'] as const)(`when it ${phase} (%s)`, async (leave) => {
      const { server, path, refused } = await serveTls(x509(), PATIENT);
      const socket = await open(path);
      expect(server.connectionCount).toBe(1);
      socket[leave]();
      await emptied(server);
      expect(refused).toEqual([]);
    });
  }

  test('but answered first in TLS, where it has only closed its side', async () => {
    const { server, path } = await serveTls(x509());
    const { tls, received } = await entered(path);
    tls.end(extendedRequest(0, { offset: MiB, length: MiB }));
    await once(tls, 'close');
    expect(received()).toBe(32 + 8 + MiB);
    await emptied(server);
  });

  test('and clients that never start TLS keep nobody out', async () => {
    const { server, path } = await serveTls(x509(), { ...PATIENT, maxConnections: 2 });
    const silent: RawClient[] = [];
    for (let i = 0; i < 150; i++) silent.push(await mayStart(path));
    expect(server.connectionCount).toBe(100);
    const [one, other] = [await entered(path), await entered(path)];
    await expect(entered(path)).rejects.toThrow();
    for (const { tls } of [one, other]) tls.destroy();
    for (const { socket } of silent) socket.destroy();
    await emptied(server);
  });
});
