import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { SecureVersion, TLSSocketOptions } from 'node:tls';
import { LacunaError } from 'lacuna/errors';
import { formatNbdUri, NbdClient, type NbdTls } from 'lacuna/nbd';
import { describe, expect, onTestFinished, test } from 'vitest';
import { openDevice } from '#dist/block/index.js';
import {
  type CertificateOptions,
  makeCertificates,
  makePskFile,
} from '../../support/certificates.js';
import { serveHostile } from '../../support/hostile-nbd.js';
import * as wire from '../../support/hostile-nbd-wire.js';
import { type Peer, usePeers } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';

const MIB = 2 ** 20;
const peers = usePeers();

const folder = async (name: string) => join(await peers.folder(), name);
const certificates = async (name = 'pki', wanted?: readonly CertificateOptions[]) =>
  makeCertificates(await folder(name), wanted);
const pskFile = async (...users: readonly string[]) => makePskFile(await folder('psk'), ...users);

/** nbdkit's pattern: every eight bytes hold their own offset. */
async function expectPattern(client: NbdClient): Promise<void> {
  const requests = Array.from({ length: 64 }, (_, i) => ({
    offset: i * 700_000,
    target: new Uint8Array([8, 512, 40_000, MIB][i % 4]),
  }));
  await Promise.all(requests.map(({ offset, target }) => client.read(offset, target)));
  for (const { offset, target } of requests) {
    const view = new DataView(target.buffer);
    for (let at = 0; at < target.length; at += 8) {
      if (Number(view.getBigUint64(at)) !== offset + at) throw new Error(`wrong at ${offset + at}`);
    }
  }
}

type Server = (credentials: string) => Promise<Peer>;

const nbdkit =
  (...options: string[]): Server =>
  (path) =>
    peers.nbdkit([
      '--tls=require',
      path.endsWith('.psk') ? `--tls-psk=${path}` : `--tls-certificates=${path}`,
      ...options,
      ...['pattern', '64M'],
    ]);

const qemuNbd =
  (verify: boolean): Server =>
  async (path) => {
    const psk = path.endsWith('.psk');
    const dir = psk ? join(path, '..') : path;
    const kind = psk ? 'tls-creds-psk' : 'tls-creds-x509';
    const peer = verify ? ',verify-peer=on' : ',verify-peer=off';
    return peers.qemuNbd([
      ...['--object', `${kind},id=t,endpoint=server,dir=${dir}${psk ? '' : peer}`],
      ...['--tls-creds', 't', '--read-only', '--image-opts'],
      `driver=nbd,server.type=unix,server.path=${(await peers.nbdkit(['pattern', '64M'])).server.path}`,
    ]);
  };

const servers: readonly [string, Server][] = [
  ['nbdkit', nbdkit()],
  ['qemu-nbd', qemuNbd(false)],
];
const verifying: readonly [string, Server][] = [
  ['nbdkit', nbdkit('--tls-verify-peer')],
  ['qemu-nbd', qemuNbd(true)],
];

describe.each(servers)('%s with a certificate', (_, serve) => {
  test('is read by one who trusts its authority', async () => {
    const path = await certificates();
    const { server } = await serve(path);
    const client = await NbdClient.connect({ server, tls: { type: 'x509', certificates: path } });
    expect(client).toMatchObject({ name: expect.stringMatching(/^nbds\+unix:/), structured: true });
    await expectPattern(client);
    await client.close();
  });

  test('is trusted by the text of its authority as well as by a file', async () => {
    const path = await certificates();
    const { server } = await serve(path);
    const ca = await readFile(join(path, 'ca-cert.pem'), 'utf8');
    const client = await NbdClient.connect({ server, tls: { type: 'x509', ca } });
    await client.close();
  });

  test('of another authority is not spoken to', async () => {
    const { server } = await serve(await certificates());
    const tls: NbdTls = { type: 'x509', certificates: await certificates('other') };
    await expect(NbdClient.connect({ server, tls })).rejects.toMatchObject({
      code: 'ERR_NBD_TLS',
      retryable: false,
      message: expect.stringContaining('certificate'),
    });
    await expect(NbdClient.connect({ server, tls: { type: 'x509' } })).rejects.toMatchObject({
      code: 'ERR_NBD_TLS',
    });
  });

  test('of another authority is spoken to only where the caller does not care', async () => {
    const { server } = await serve(await certificates());
    const certificate = await certificates('other');
    const tls: NbdTls = { type: 'x509', certificates: certificate, 'verify-peer': false };
    const client = await NbdClient.connect({ server, tls });
    expect(client.name).toContain('tls-verify-peer=false');
    await client.close();
  });

  test('under another name is not spoken to', async () => {
    const path = await certificates('pki', [{ name: 'server', names: 'DNS:backup.example' }]);
    const { server } = await serve(path);
    const tls: NbdTls = { type: 'x509', certificates: path };
    await expect(NbdClient.connect({ server, tls })).rejects.toMatchObject({
      code: 'ERR_NBD_TLS',
      errno: 'ERR_TLS_CERT_ALTNAME_INVALID',
      message: expect.stringContaining('backup.example'),
    });
    const named = await NbdClient.connect({ server, tls: { ...tls, hostname: 'backup.example' } });
    await named.close();
  });
});

test('a certificate that has expired is not believed', async () => {
  const path = await certificates('pki', [{ name: 'server', days: -1 }]);
  const { server } = await nbdkit()(path);
  const connecting = NbdClient.connect({ server, tls: { type: 'x509', certificates: path } });
  await expect(connecting).rejects.toMatchObject({
    code: 'ERR_NBD_TLS',
    message: expect.stringContaining('expired'),
  });
});

describe.each(verifying)('%s that asks for a certificate', (_, serve) => {
  test('takes ours, and nobody without', async () => {
    const path = await certificates();
    const { server } = await serve(path);
    const client = await NbdClient.connect({ server, tls: { type: 'x509', certificates: path } });
    await expectPattern(client);
    await client.close();
    const ca = await readFile(join(path, 'ca-cert.pem'), 'utf8');
    const error = await NbdClient.connect({ server, tls: { type: 'x509', ca } }).catch((e) => e);
    expect(['ERR_NBD_TLS', 'ERR_NBD_DISCONNECTED']).toContain(error.code);
    expect(error.message).toMatch(/certificate/);
  });
});

describe.each(servers)('%s with pre-shared keys', (_, serve) => {
  test('is read by one who has a key', async () => {
    const path = await pskFile('alice', 'bob');
    const { server } = await serve(path);
    for (const username of ['alice', 'bob']) {
      const tls: NbdTls = { type: 'psk', username, 'psk-file': path };
      const client = await NbdClient.connect({ server, tls });
      expect(client.name).toContain(`nbds+unix://${username}@/`);
      await expectPattern(client);
      await client.close();
    }
  });

  test('does not take a wrong key or an unknown user, and the key is in no message', async () => {
    const { server } = await serve(await pskFile('alice'));
    const key = '00112233445566778899aabbccddeeff';
    for (const username of ['alice', 'mallory']) {
      const connecting = NbdClient.connect({ server, tls: { type: 'psk', username, key } });
      const error = await connecting.catch((reason) => reason);
      expect(['ERR_NBD_TLS', 'ERR_NBD_DISCONNECTED']).toContain(error.code);
      expect(error.message).toMatch(/key|TLS|secure/);
      expect(error.message).not.toContain(key);
    }
  });
});

test('a server that dies in the middle of TLS fails each request in flight once', async () => {
  const path = await pskFile('alice');
  const peer = await peers.nbdkit([
    ...['--tls=require', `--tls-psk=${path}`],
    ...['--filter=delay', 'pattern', '64M', 'rdelay=30'],
  ]);
  const tls: NbdTls = { type: 'psk', username: 'alice', 'psk-file': path };
  const client = await NbdClient.connect({ server: peer.server, tls });
  let settled = 0;
  const reads = Array.from({ length: 10 }, (_, i) =>
    client.read(i * 65536, new Uint8Array(65536)).finally(() => settled++),
  );
  const results = Promise.allSettled(reads);
  // No close_notify comes: the system closes the socket.
  await peer.stop('SIGKILL');
  for (const result of await results) {
    expect(result).toMatchObject({ reason: { code: 'ERR_NBD_DISCONNECTED' } });
  }
  expect(settled).toBe(10);
  await client.close();
});

describe('never weaker than asked:', () => {
  test.each<[string, Server]>([
    ['nbdkit', () => peers.nbdkit(['pattern', '1M'])],
    ['qemu-nbd', async () => peers.qemuNbd(['--read-only', '-f', 'raw', await pskFile('a')])],
    ['a server of old', () => peers.nbdkit(['--mask-handshake=0', 'pattern', '1M'])],
  ])('%s without TLS is left alone', async (_, serve) => {
    const { server } = await serve('');
    const tls: NbdTls = { type: 'psk', username: 'a', key: '00ff' };
    await expect(NbdClient.connect({ server, tls })).rejects.toMatchObject({
      code: 'ERR_NBD_TLS',
      message: expect.stringContaining('not used without'),
    });
    await expect(NbdClient.list(server, { tls })).rejects.toMatchObject({ code: 'ERR_NBD_TLS' });
  });

  test.each(servers)('%s that demands TLS says so to one without', async (_, serve) => {
    const { server } = await serve(await certificates());
    await expect(NbdClient.connect({ server })).rejects.toMatchObject({
      code: 'ERR_NBD_TLS',
      message: expect.stringContaining('requires TLS'),
    });
  });

  test('a server with a certificate does not pass where a key was asked for', async () => {
    const { server } = await nbdkit()(await certificates());
    const tls: NbdTls = { type: 'psk', username: 'a', key: '00112233445566778899aabbccddeeff' };
    const error = await NbdClient.connect({ server, tls }).catch((reason) => reason);
    expect(['ERR_NBD_TLS', 'ERR_NBD_DISCONNECTED']).toContain(error.code);
  });
});

describe('what Node is told elsewhere does not weaken it:', () => {
  test('an environment that lets every certificate pass', async () => {
    const { server } = await nbdkit()(await certificates());
    const tls: NbdTls = { type: 'x509', certificates: await certificates('other') };
    const psk: NbdTls = { type: 'psk', username: 'a', key: '00112233445566778899aabbccddeeff' };
    process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';
    onTestFinished(() => {
      delete process.env.NODE_TLS_REJECT_UNAUTHORIZED;
    });
    for (const asked of [tls, psk]) {
      await expect(NbdClient.connect({ server, tls: asked })).rejects.toBeInstanceOf(LacunaError);
    }
  });

  test.each<[SecureVersion, boolean]>([
    ['TLSv1.1', false],
    ['TLSv1.2', true],
  ])('a server that knows %s at most', async (maxVersion, enough) => {
    const path = await certificates();
    const [key, cert] = await Promise.all(
      ['server-key.pem', 'server-cert.pem'].map((name) => readFile(join(path, name))),
    );
    const options = { key, cert, maxVersion, minVersion: 'TLSv1', ciphers: 'ALL:@SECLEVEL=0' };
    let secured = false;
    const controller = new AbortController();
    const server = await serveHostile(async (connection) => {
      connection.send(wire.greeting());
      await connection.take(4);
      await connection.option();
      connection.startTls(wire.ack(5), options as TLSSocketOptions, () => {
        secured = true;
        // It says nothing more.
        if (enough) controller.abort();
      });
    });
    const tls: NbdTls = { type: 'x509', certificates: path };
    const { signal } = controller;
    const connecting = NbdClient.connect({ server, tls, signal, connectTimeoutMs: 600_000 });
    const code = enough ? 'ERR_ABORTED' : 'ERR_NBD_TLS';
    await expect(connecting).rejects.toMatchObject({ code });
    expect(secured).toBe(enough);
  });
});

describe('files that are wrong are told by name:', () => {
  const server = { type: 'unix' as const, path: '/nowhere' };
  test.each<[string, NbdTls, string]>([
    ['no folder', { type: 'x509', certificates: '/nowhere' }, '/nowhere/ca-cert.pem'],
    ['no certificate', { type: 'x509', ca: 'rubbish' }, 'cannot be used'],
    ['a key without certificate', { type: 'x509', key: 'x' }, 'belong together'],
    ['no file of keys', { type: 'psk', username: 'a', 'psk-file': '/nowhere' }, '/nowhere'],
    ['no key', { type: 'psk', username: 'a' }, 'missing'],
    ['a key that is no number', { type: 'psk', username: 'a', key: 'secret' }, 'hexadecimal'],
    ['no user', { type: 'psk', key: '00' }, 'name the user'],
  ])('%s', async (_, tls, words) => {
    const error = await NbdClient.connect({ server, tls }).catch((reason) => reason);
    expect(error).toMatchObject({ code: 'ERR_NBD_TLS', message: expect.stringContaining(words) });
    expect(error.message).not.toContain('secret');
  });

  test('a folder with rubbish', async () => {
    const path = await peers.folder();
    await writeFile(join(path, 'ca-cert.pem'), 'rubbish');
    const tls: NbdTls = { type: 'x509', certificates: path };
    await expect(NbdClient.connect({ server, tls })).rejects.toThrow(
      `the certificates in ${path} cannot be used`,
    );
  });

  test('a user that the file does not have', async () => {
    const tls: NbdTls = { type: 'psk', username: 'carol', 'psk-file': await pskFile('a', 'b') };
    await expect(NbdClient.connect({ server, tls })).rejects.toThrow('no key of carol');
  });
});

describe('a device over TLS', () => {
  test('is opened by a URI, and lists what the URI says', async () => {
    const path = await certificates();
    const { server } = await nbdkit()(path);
    const tls: NbdTls = { type: 'x509', certificates: path };
    const uri = `${formatNbdUri(server, '', tls)}&tls-certificates=${path}`;
    await using device = await openDevice(uri);
    expect(device.description).toMatchObject({ driver: 'nbd', tls });
    await using again = await openDevice(JSON.parse(JSON.stringify(device.description)));
    expect(again.size).toBe(device.size);
  });

  test('is opened by dotted keys', async () => {
    const path = await pskFile('alice');
    const { server } = await nbdkit()(path);
    const text = `driver=nbd,server.type=unix,server.path=${server.path}`;
    await using device = await openDevice(`${text},tls.type=psk,tls.psk-file=${path}`);
    expect(device.size).toBe(64 * MIB);
    const wrong = openDevice(`${text},tls.type=psk,tls.verify-peer=off`);
    await expect(wrong).rejects.toThrow('tls.verify-peer is unknown');
  });

  test('is copied by threads that each open a connection of their own', async () => {
    const path = await certificates();
    const { server } = await nbdkit('--tls-verify-peer')(path);
    const keys = [`tls.type=x509`, `tls.certificates=${path}`, 'reconnect-delay=10'];
    const source = `driver=nbd,server.type=unix,server.path=${server.path},${keys.join(',')}`;
    const target = await folder('copy.raw');
    const { code, stdout } = await runCli(['copy', '--json', '--threads', '2', source, target]);
    expect(code).toBe(0);
    expect(JSON.parse(stdout.trimEnd().split('\n').at(-1) as string)).toMatchObject({ threads: 2 });
    const bytes = await readFile(target);
    for (let at = 0; at < 64 * MIB; at += 8) {
      if (Number(bytes.readBigUInt64BE(at)) !== at) throw new Error(`wrong at ${at}`);
    }
  });

  test('writes from shared memory and reads into it', async () => {
    const path = await pskFile('alice');
    const peer = await peers.nbdkit(['--tls=require', `--tls-psk=${path}`, 'memory', '4M']);
    const tls: NbdTls = { type: 'psk', 'psk-file': path };
    await using device = await openDevice(
      { driver: 'nbd', server: peer.server, tls },
      { writable: true },
    );
    const memory = new Uint8Array(new SharedArrayBuffer(2 * MIB));
    const source = memory.subarray(0, MIB);
    for (let i = 0; i < MIB; i++) source[i] = i % 251;
    const target = memory.subarray(MIB);
    await Promise.all([0, 1, 2].map((i) => device.write(i * MIB + 512, source)));
    await device.flush();
    await device.read(MIB + 512, target);
    expect(Buffer.compare(Uint8Array.from(target), Uint8Array.from(source))).toBe(0);
  });
});
