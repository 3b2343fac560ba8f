import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BitmapFile, DirtyBitmaps } from 'lacuna/bitmap';
import { describe, expect, onTestFinished, test } from 'vitest';
import { createRawFile } from '#dist/block/index.js';
import { isLoopback, parseBindAddress } from '#dist/cli/commands/serve/serve-address.js';
import { parseBitmaps } from '#dist/cli/device/named-bitmaps.js';
import { makeCertificates } from '../../support/certificates.js';
import { finish } from '../../support/nbd-server.js';
import { run, usePeers } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';

const MAIN = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url));
const peers = usePeers();

interface Serving {
  readonly child: ChildProcess;
  /** Its first line on standard output. */
  readonly line: string;
  stderr(): string;
  ended(): Promise<number | null>;
}

/** `lacuna serve`, once it says where. */
async function serve(...args: string[]): Promise<Serving> {
  const child = spawn(process.execPath, [MAIN, 'serve', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stderr = '';
  child.stderr.on('data', (text) => {
    stderr += text;
  });
  const exited = new Promise<number | null>((resolve) => child.on('exit', resolve));
  onTestFinished(async () => {
    child.kill('SIGKILL');
    await exited;
  });
  const line = await new Promise<string>((resolve, reject) => {
    child.stdout.once('data', (text) => resolve(String(text).trim()));
    child.once('exit', () => reject(new Error(`it ended: ${stderr}`)));
  });
  return { child, line, stderr: () => stderr, ended: () => exited };
}

async function disk(): Promise<{ folder: string; path: string; socket: string }> {
  const folder = await peers.folder();
  const path = join(folder, 'disk.raw');
  await createRawFile(path, 2 ** 20);
  return { folder, path, socket: join(folder, 'serve.sock') };
}

test('serve prints the URI, serves read-only until it is asked to end, and removes its socket', async () => {
  const { path, socket } = await disk();
  const { child, line, ended } = await serve(
    path,
    '--socket',
    socket,
    '--export',
    'v da',
    '--description',
    'mine',
  );
  expect(line).toBe(
    `nbd+unix:///v%20da?socket=${encodeURIComponent(socket).replaceAll('%2F', '/')}`,
  );
  const { stdout } = await finish('nbdinfo', ['--json', line]);
  expect(JSON.parse(stdout).exports).toMatchObject([
    { 'export-name': 'v da', description: 'mine', is_read_only: true },
  ]);
  child.kill('SIGTERM');
  expect(await ended()).toBe(0);
  expect(existsSync(socket)).toBe(false);
});

test('serve --writable lets clients write, --json prints a document, port 0 is chosen by the system', async () => {
  const { path } = await disk();
  const { child, line, ended } = await serve(path, '--writable', '--json', '--bind', '127.0.0.1:0');
  const document = JSON.parse(line);
  expect(document).toMatchObject({ export: '', size: 2 ** 20, readOnly: false });
  expect(document.uri).toBe(`nbd://127.0.0.1:${document.address.port}/`);
  const written = await finish('qemu-io', ['-f', 'raw', '-c', 'write -P 7 4k 4k', document.uri]);
  expect(written.code).toBe(0);
  const shared = ['-r', '-U', '-f', 'raw', '-c', 'read -P 7 4k 4k', path];
  expect((await finish('qemu-io', shared)).code).toBe(0);
  child.kill('SIGINT');
  expect(await ended()).toBe(0);
});

test('the socket of a server that lives is left alone, that of a dead one is replaced', async () => {
  const { path, socket } = await disk();
  const first = await serve(path, '--socket', socket);
  const second = await runCli(['serve', path, '--socket', socket]);
  expect([second.code, second.stderr]).toEqual([1, expect.stringContaining('in use')]);
  expect((await finish('nbdinfo', ['--size', first.line])).code).toBe(0);
  first.child.kill('SIGKILL');
  await first.ended();
  expect(existsSync(socket)).toBe(true);
  const third = await serve(path, '--socket', socket);
  expect((await finish('nbdinfo', ['--size', third.line])).code).toBe(0);
});

test('serve never removes a file that is no socket', async () => {
  const { path, folder } = await disk();
  const precious = join(folder, 'precious');
  writeFileSync(precious, 'x');
  mkdirSync(join(folder, 'room'));
  for (const there of [precious, join(folder, 'room')]) {
    const { code, stderr } = await runCli(['serve', path, '--socket', there]);
    expect([code, stderr]).toEqual([1, expect.stringContaining('not a socket')]);
    expect(existsSync(there)).toBe(true);
  }
});

test('serve fails where its port is taken', async () => {
  const { path } = await disk();
  const other = createServer();
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void other.close());
  const { port } = other.address() as { port: number };
  const { code, stderr } = await runCli(['serve', path, '--bind', `127.0.0.1:${port}`]);
  expect([code, stderr]).toEqual([1, expect.stringContaining('EADDRINUSE')]);
});

test('serve requires TLS where it has certificates or a shared secret', async () => {
  const { path, folder, socket } = await disk();
  await makeCertificates(folder);
  const keys = join(folder, 'keys.psk');
  writeFileSync(keys, '# comment\nalice:00112233445566778899aabbccddeeff\n');
  const pem = (name: string) => join(folder, `${name}.pem`);
  const x509 = await serve(
    path,
    '--socket',
    socket,
    '--tls-cert',
    pem('server-cert'),
    '--tls-key',
    pem('server-key'),
  );
  expect(x509.line).toMatch(/^nbds\+unix:/);
  const uri = `nbds+unix://localhost/?socket=${socket}&tls-certificates=${folder}`;
  expect((await finish('nbdinfo', ['--size', uri])).code).toBe(0);
  expect((await finish('nbdinfo', [`nbd+unix:///?socket=${socket}`])).code).toBe(1);
  const psk = await serve(path, '--socket', `${socket}2`, '--tls-psk', keys);
  expect(psk.line).toMatch(/^nbds\+unix:.*tls-type=psk/);
  // The URI as it is lacks what only the client knows, and says what; a certificate is not what is asked for.
  const bare = await runCli(['info', psk.line]);
  expect([bare.code, bare.stderr]).toEqual([1, expect.stringContaining('tls-psk-file')]);
  const own = psk.line.replace('nbds+unix://', 'nbds+unix://alice@');
  expect((await finish('nbdinfo', ['--size', `${own}&tls-psk-file=${keys}`])).code).toBe(0);
  expect((await runCli(['info', `${own}&tls-psk-file=${keys}`])).code).toBe(0);
  const other = uri.replace(socket, `${socket}2`).replace('localhost', '');
  const wrong = await runCli(['info', other]);
  expect([wrong.code, wrong.stderr]).toEqual([1, expect.stringContaining('tls-psk-file=FILE')]);
  const shared = `nbds+unix://alice@/?socket=${socket}2&tls-psk-file=${keys}`;
  expect((await finish('nbdinfo', ['--size', shared])).code).toBe(0);
});

test.each([
  [['--read-only', '--writable'], 'exclude'],
  [['--socket', '/x', '--bind', 'localhost'], 'exclude'],
  [['--bind', 'a:b:c'], 'HOST:PORT'],
  [['--bind', 'localhost:70000'], 'from 0 to 65535, not 70000'],
  [['--bind', '10997'], 'say localhost:10997'],
  [['--tls-cert', 'x'], '--tls-key'],
  [['--tls-psk', 'x', '--tls-ca', 'y'], 'excludes'],
  [['--connections', '0'], 'whole number'],
])('serve refuses %j as misuse', async (args, words) => {
  const { path } = await disk();
  const { code, stderr } = await runCli(['serve', path, ...args]);
  expect([code, stderr]).toEqual([2, expect.stringContaining(words)]);
});

test('a bitmap of the source is passed on; one that is not there is an error', async () => {
  const { path, socket } = await disk();
  const { code, stderr } = await runCli(['serve', path, '--bitmap', 'b0', '--socket', socket]);
  expect([code, stderr]).toEqual([1, expect.stringContaining('b0=FILE')]);
});

describe('a bitmap that a file keeps', () => {
  const SIZE = 2 ** 20;

  /** A file with `nightly`, which has some dirt, and `crashed`, which lacks writes. */
  async function bitmaps(size = SIZE): Promise<string> {
    const path = join(await peers.folder(), 'disk.bitmaps');
    const dirty = new DirtyBitmaps({ size });
    dirty.add({ name: 'nightly', granularity: 4096, persistent: true });
    dirty.add({ name: 'crashed', granularity: 4096, persistent: true });
    dirty.disable('crashed');
    dirty.record(0, 5000);
    dirty.record(512 * 1024, 1);
    const file = BitmapFile.open(path, { size });
    file.store(dirty);
    dirty.disable('nightly');
    dirty.enable('crashed');
    file.store(dirty);
    // Not closed: what records is marked, and found inconsistent.
    file.close();
    return path;
  }

  test('is served beside the disk, to nbdinfo and to ourselves', async () => {
    const { path, socket } = await disk();
    const kept = await bitmaps();
    const { line } = await serve(path, '--socket', socket, '--bitmap', `nightly=${kept}`);
    const context = 'qemu:dirty-bitmap:nightly';
    const { stdout } = await finish('nbdinfo', ['--json', `--map=${context}`, line]);
    const told = JSON.parse(stdout) as { offset: number; length: number; type: number }[];
    const runs = told.map(({ offset, length, type }) => [offset, length, type]);
    expect(runs).toEqual([
      [0, 8192, 1],
      [8192, 512 * 1024 - 8192, 0],
      [512 * 1024, 4096, 1],
      [512 * 1024 + 4096, 512 * 1024 - 4096, 0],
    ]);
    const ours = await runCli(['map', '--json', '--context', context, line]);
    const extents = JSON.parse(ours.stdout) as { start: number; length: number; dirty: boolean }[];
    expect(extents.map((e) => [e.start, e.length, Number(e.dirty)])).toEqual(runs);
  });

  test.each<[string, (kept: string) => string, string]>([
    ['lacks writes', (kept) => `crashed=${kept}`, 'ERR_BITMAP_INCONSISTENT'],
    ['is not in the file', (kept) => `weekly=${kept}`, "'nightly', 'crashed'"],
    ['has no file', () => 'nightly=/nowhere/disk.bitmaps', '/nowhere/disk.bitmaps'],
    ['is in a file of something else', () => `nightly=${MAIN}`, 'ERR_BITMAP_CORRUPT'],
  ])('is refused where it %s', async (_, argument, words) => {
    const { path, socket } = await disk();
    const kept = await bitmaps();
    const { code, stderr } = await runCli([
      ...['serve', path, '--socket', socket],
      ...['--bitmap', argument(kept)],
    ]);
    expect([code, stderr]).toEqual([1, expect.stringContaining(words)]);
  });

  test('is refused for a disk of another size', async () => {
    const { path, socket } = await disk();
    const kept = await bitmaps(2 * SIZE);
    const bitmap = ['--bitmap', `nightly=${kept}`];
    const { code, stderr } = await runCli(['serve', path, '--socket', socket, ...bitmap]);
    expect([code, stderr]).toEqual([1, expect.stringContaining('ERR_BITMAP_MISMATCH')]);
  });

  test.each([
    [['--bitmap', 'a=x', '--writable'], 'missing from them'],
    [['--bitmap', '=x'], 'NAME=FILE'],
    [['--bitmap', 'a='], 'NAME=FILE'],
    [['--bitmap', 'a', '--bitmap', 'a=x'], 'already'],
  ])('is refused as misuse with %j', async (args, words) => {
    const { path } = await disk();
    const { code, stderr } = await runCli(['serve', path, ...args]);
    expect([code, stderr]).toEqual([2, expect.stringContaining(words)]);
  });
});

describe('the flags of serve', () => {
  test('name bitmaps, whatever the names of their files', () => {
    const { ofSource, ofFiles } = parseBitmaps(['a', 'b=file', 'c=x=y=', 'd==']);
    expect(ofSource).toEqual(['a']);
    expect([...ofFiles]).toEqual([
      ['b', 'file'],
      ['c', 'x=y='],
      ['d', '='],
    ]);
  });

  test('name addresses, and tell which of them are open to others', () => {
    expect(parseBindAddress('host')).toEqual({ type: 'inet', host: 'host', port: 10809 });
    expect(parseBindAddress('[::1]:5')).toEqual({ type: 'inet', host: '::1', port: 5 });
    expect(parseBindAddress('[fe80::1%eth0]').type).toBe('inet');
    expect(isLoopback(parseBindAddress('127.9.9.9:1'))).toBe(true);
    for (const open of ['0.0.0.0', '[::]', '10.0.0.1', 'localhost.example.org']) {
      expect(isLoopback(parseBindAddress(open))).toBe(false);
    }
  });
});

describe('a socket that is handed over', () => {
  const served = (...args: string[]) => ['--', '[', process.execPath, MAIN, 'serve', ...args, ']'];

  async function filled() {
    const { folder, path } = await disk();
    const bytes = Buffer.alloc(300_001, 'lacuna');
    writeFileSync(path, bytes);
    return { folder, path, bytes };
  }

  test('is served as nbdinfo and nbdcopy hand it over', async () => {
    const { folder, path, bytes } = await filled();
    const info = await finish('nbdinfo', ['--size', ...served(path)]);
    expect(info).toEqual({ code: 0, stdout: '300001\n', stderr: '' });
    const copy = join(folder, 'copy.raw');
    expect(await finish('nbdcopy', [...served(path), copy])).toMatchObject({ code: 0, stderr: '' });
    expect(readFileSync(copy).equals(bytes)).toBe(true);
  });

  test('leaves standard output to the program that handed it over', async () => {
    const { path, bytes } = await filled();
    const { code, stdout, stderr } = await finish('nbdcopy', [...served(path), '-']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toBe(bytes.toString());
  });

  /** What systemd does: a socket as descriptor 3, and an environment that says so. */
  const HAND_OVER = `
import os, socket, sys
kind, where, count, *command = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX if kind == 'unix' else socket.AF_INET)
listener.bind(where if kind == 'unix' else (where, 0))
listener.listen(5)
if listener.fileno() != 3: os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=count)
os.execv(command[0], command)`;

  /** `lacuna serve` with a listening socket as systemd hands it over. */
  function handedOver(kind: 'unix' | 'inet', where: string, args: string[], count = 1) {
    const command = [process.execPath, MAIN, 'serve', ...args];
    const all = ['-c', HAND_OVER, kind, where, String(count), ...command];
    const child = spawn('/usr/bin/python3', all, { stdio: ['ignore', 'pipe', 'pipe'] });
    onTestFinished(() => void child.kill('SIGKILL'));
    let said = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (bytes) => {
        said += bytes;
      });
    }
    const exited = new Promise<number | null>((resolve) => child.on('exit', resolve));
    const line = async () => {
      await expect.poll(() => said).toContain('\n');
      return said;
    };
    return { child, exited, line };
  }

  test('may be one of TCP, or a Unix socket, which stays', async () => {
    const { folder, path } = await filled();
    const inet = handedOver('inet', '127.0.0.1', [path, '--json']);
    const told = JSON.parse(await inet.line());
    expect(told.address).toMatchObject({ type: 'inet', host: '127.0.0.1' });
    const socket = join(folder, 'handed.sock');
    const unix = handedOver('unix', socket, [path, '--json']);
    expect(JSON.parse(await unix.line())).toMatchObject({
      address: { type: 'unix', path: socket },
    });
    for (const uri of [told.uri, `nbd+unix:///?socket=${socket}`]) {
      expect((await finish('nbdinfo', ['--size', uri])).stdout).toBe('300001\n');
    }
    for (const { child, exited } of [inet, unix]) {
      child.kill('SIGTERM');
      expect(await exited).toBe(0);
    }
    expect(existsSync(socket)).toBe(true);
  });

  test('excludes another address and a second socket', async () => {
    const { folder, path } = await filled();
    const bind = ['--bind', '127.0.0.1:0'];
    const both = handedOver('unix', join(folder, 'a.sock'), [path, ...bind]);
    expect(await both.line()).toContain('leave out --socket and --bind');
    const two = handedOver('unix', join(folder, 'b.sock'), [path], 2);
    expect(await two.line()).toContain('one socket can be handed over, not LISTEN_FDS=2');
    expect(await Promise.all([both.exited, two.exited])).toEqual([2, 2]);
  });

  test('that is no socket is refused, and one for another process is not taken', async () => {
    const { path, socket } = await disk();
    const command = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3</dev/null';
    const args = ['-c', command, 'sh', process.execPath, MAIN, 'serve', path];
    const refused = await finish('sh', args);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain('cannot listen on file descriptor 3');
    process.env.LISTEN_PID = '1';
    process.env.LISTEN_FDS = '1';
    onTestFinished(() => {
      delete process.env.LISTEN_PID;
      delete process.env.LISTEN_FDS;
    });
    expect((await serve(path, '--socket', socket)).line).toContain(socket);
  });
});

test('a folder of a socket that is not there is named', async () => {
  const { folder, path } = await disk();
  const socket = join(folder, 'none', 'serve.sock');
  const { code, stderr } = await runCli(['serve', path, '--socket', socket]);
  expect(code).toBe(1);
  expect(stderr).toContain(`there is no folder ${join(folder, 'none')}: make it`);
});

describe('info of a server that cannot be reached', () => {
  test.each([
    ['nbd://no-such-host.invalid/', 'no machine has that name|could not be looked up'],
    ['nbd://localhost:1/', 'is the server running'],
    ['nbd+unix:///?socket=/no/such/socket', 'nothing is at that path: is the server running'],
  ])('says what may be wrong with %s', async (uri, words) => {
    const { code, stderr } = await runCli(['info', uri]);
    expect(code).toBe(1);
    expect(stderr).toMatch(new RegExp(words));
  });

  test('tells the URI of a socket that is named as a file', async () => {
    const { path, socket } = await disk();
    await serve(path, '--socket', socket);
    const { stderr } = await runCli(['info', socket]);
    const uri = /is (nbd\+unix:\S+)/.exec(stderr)?.[1];
    expect((await runCli(['info', uri!])).code).toBe(0);
  });

  test('names the exports and contexts that there are where another one was asked for', async () => {
    const { path, socket } = await disk();
    await serve(path, '--socket', socket, '--export', 'vda');
    const uri = (name: string) => `nbd+unix:///${name}?socket=${socket}`;
    const none = await runCli(['info', uri('vdb')]);
    expect(none.stderr).toContain('it has no such export');
    expect(none.stderr).toContain('it has: "vda"');
    const context = await runCli(['map', '--context', 'foo:bar', uri('vda')]);
    expect(context.stderr).toContain('"foo:bar"');
    expect(context.stderr).toContain('it has: "base:allocation"');
  });
});

test('a bitmap that is inconsistent is not said to be missing', async () => {
  const folder = await peers.folder();
  const image = join(folder, 'disk.qcow2');
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', image, '1M']);
  await run('qemu-img', ['bitmap', '--add', image, 'b0']);
  const bytes = readFileSync(image);
  const name = bytes.indexOf(Buffer.from('b0'), 65536);
  // The flags of its entry, 12 bytes behind the 24 that stand in front of its name: in use.
  bytes.writeUInt32BE(bytes.readUInt32BE(name - 12) | 1, name - 12);
  writeFileSync(image, bytes);
  const context = ['--context', 'qemu:dirty-bitmap:b0'];
  for (const args of [
    ['map', ...context, image],
    ['serve', '--bitmap', 'b0', image],
  ]) {
    const { code, stderr } = await runCli(args);
    expect(code).toBe(1);
    expect(stderr).toContain('is inconsistent');
  }
});

test('a disk whose status has millions of parts is shown without its allocation', async () => {
  const { uri } = await peers.nbdkit(['memory', String(2 ** 53 - 7)]);
  const { code, stdout, stderr } = await runCli(['info', '--json', uri]);
  expect(code).toBe(3);
  expect(stderr).toContain('how much of');
  const info = JSON.parse(stdout);
  expect(info).toMatchObject({ size: 2 ** 53 - 7, allocation: null });
  expect(info.warnings).toHaveLength(1);
});
