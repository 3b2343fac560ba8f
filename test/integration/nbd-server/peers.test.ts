/** Our server under other people's clients. */
import { open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Bitmap } from 'lacuna/bitmap';
import type { NbdServer } from 'lacuna/nbd';
import { describe, expect, onTestFinished, test } from 'vitest';
import { createRawFile, type Device, openDevice } from '#dist/block/index.js';
import { fakeDevice, pattern } from '../../support/fake-device.js';
import { emptied, finish, serveDevice } from '../../support/nbd-server.js';
import { noise } from '../../support/noise.js';
import { usePeers } from '../../support/peers.js';

const MiB = 1024 * 1024;
const peers = usePeers();

async function succeeds(program: string, args: readonly string[], cwd?: string): Promise<string> {
  const { code, stdout, stderr } = await finish(program, args, { cwd });
  expect(`${code} ${stderr}`).toMatch(/^0 /);
  return stdout;
}

/** A raw file on disk, some of it data, served as it is. */
async function serveFile(size: number, options: Parameters<typeof serveDevice>[1] = {}) {
  const folder = await peers.folder();
  const path = join(folder, 'served.raw');
  await createRawFile(path, size);
  const file = await open(path, 'r+');
  for (let at = 0; at + MiB <= size; at += 3 * MiB) await file.write(noise(MiB), 0, MiB, at);
  await file.close();
  const device = await openDevice(path, { writable: true });
  return { ...(await serveDevice(device, options)), file: path, scratch: folder, device };
}

/** Begins to watch how many clients a server has; tells how many there were at most. */
function mostConnections(server: NbdServer): () => number {
  let most = 0;
  const timer = setInterval(() => {
    most = Math.max(most, server.connectionCount);
  }, 1);
  onTestFinished(() => clearInterval(timer));
  return () => most;
}

test('a server that is closed leaves nothing behind that keeps its process', async () => {
  const script = `
    import { openDevice } from 'lacuna';
    import { NbdServer } from 'lacuna/nbd';
    const device = await openDevice({ driver: 'memory', size: 4096 });
    const server = new NbdServer({ exports: [{ name: '', device }] });
    const address = await server.listen({ type: 'inet', host: '127.0.0.1', port: 0 });
    const client = await openDevice({ driver: 'nbd', server: address });
    await client.read(0, new Uint8Array(512));
    await client.close();
    while (server.connectionCount > 0) await new Promise((resolve) => setImmediate(resolve));
    await server.close();
    console.log(process.getActiveResourcesInfo().includes('Timeout') ? 'waits' : 'is done');`;
  const told = await succeeds(process.execPath, ['--input-type=module', '-e', script]);
  expect(told).toBe('is done\n');
});

describe('nbdinfo', () => {
  test('--json and --list tell the export', async () => {
    const options = { name: 'vda', description: 'a disk' };
    const { uri } = await serveDevice(fakeDevice(64 * MiB), options);
    const { exports } = JSON.parse(await succeeds('nbdinfo', ['--json', '--list', uri]));
    expect(exports).toMatchObject([
      {
        'export-name': 'vda',
        description: 'a disk',
        'export-size': 64 * MiB,
        contexts: ['base:allocation'],
        block_size_minimum: 1,
        block_size_preferred: 65536,
        block_size_maximum: 32 * MiB,
      },
    ]);
    expect(await succeeds('nbdinfo', ['--size', uri])).toBe(`${64 * MiB}\n`);
  });

  test.each([
    [
      '--can',
      [
        'cache',
        'connect',
        'df',
        'fast-zero',
        'flush',
        'fua',
        'multi-conn',
        'read',
        'trim',
        'write',
        'zero',
        'structured-reply',
      ],
      [],
      {},
    ],
    [
      '--can',
      ['connect', 'flush', 'fua', 'read', 'multi-conn'],
      ['write', 'trim', 'zero', 'fast-zero'],
      { readOnly: true },
    ],
    ['--is', [], ['read-only', 'rotational', 'tls'], {}],
    ['--is', ['read-only'], ['rotational', 'tls'], { readOnly: true }],
  ])('%s %j, and not %j', async (question, yes, no, options) => {
    const { uri } = await serveDevice(fakeDevice(MiB), options);
    for (const each of yes)
      expect([each, (await finish('nbdinfo', [question, each, uri])).code]).toEqual([each, 0]);
    for (const each of no)
      expect([each, (await finish('nbdinfo', [question, each, uri])).code]).toEqual([each, 2]);
  });

  test('--map tells allocation and dirty bitmaps', async () => {
    const device = fakeDevice(MiB);
    await device.write(65536, pattern(65536));
    const b0 = new Bitmap({ size: MiB, granularity: 4096 });
    b0.set(8192, 4096);
    const { uri } = await serveDevice(device, { bitmaps: { b0 } });
    const map = async (context: string) =>
      JSON.parse(await succeeds('nbdinfo', ['--json', `--map=${context}`, uri])).map(
        ({ offset, length, type }: Record<string, number>) => [offset, length, type],
      );
    expect(await map('base:allocation')).toEqual([
      [0, 65536, 3],
      [65536, 65536, 0],
      [131072, MiB - 131072, 3],
    ]);
    expect(await map('qemu:dirty-bitmap:b0')).toEqual([
      [0, 8192, 0],
      [8192, 4096, 1],
      [12288, MiB - 12288, 0],
    ]);
  });

  test('--map of the contexts of a qcow2 chain is what qemu-nbd tells', async () => {
    const folder = await peers.folder();
    const [base, top] = ['base', 'top'].map((name) => join(folder, `${name}.qcow2`));
    const create = (...args: string[]) => succeeds('qemu-img', ['create', '-qf', 'qcow2', ...args]);
    const write = (path: string, ...commands: string[]) =>
      succeeds('qemu-io', ['-f', 'qcow2', ...commands.flatMap((each) => ['-c', each]), path]);
    await create(base, '8M');
    await write(base, 'write 1M 2M', 'write -z 5M 64k');
    await create('-b', base, '-F', 'qcow2', top);
    await succeeds('qemu-img', ['bitmap', '--add', top, 'b0']);
    await write(top, 'write 2M 128k', 'write 6M 64k');
    const device = await openDevice(top);
    onTestFinished(() => device.close());
    const ours = await serveDevice(device);
    const theirs = await peers.qemuNbd(['-r', '-A', '-B', 'b0', '-f', 'qcow2', top]);
    const map = (context: string, uri: string) => succeeds('nbdinfo', [`--map=${context}`, uri]);
    for (const context of ['qemu:allocation-depth', 'qemu:dirty-bitmap:b0']) {
      const told = await map(context, ours.uri);
      expect(told.split('\n').length).toBeGreaterThan(5);
      expect(told).toBe(await map(context, theirs.uri));
    }
  });

  test('--map of a file with very many extents is complete', async () => {
    const bitmap = new Bitmap({ size: 2 ** 32, granularity: 4096 });
    for (let at = 0; at < 2 ** 32; at += 8192) bitmap.set(at, 1);
    const { uri } = await serveDevice(fakeDevice(2 ** 32), { bitmaps: { b: bitmap } });
    const map = JSON.parse(await succeeds('nbdinfo', ['--json', '--map=qemu:dirty-bitmap:b', uri]));
    expect(map).toHaveLength(2 ** 20);
    expect(map.at(-1)).toMatchObject({ offset: 2 ** 32 - 4096, length: 4096, type: 0 });
  });
});

describe('nbdcopy', () => {
  test.each([4 * 1024, 64 * 1024, MiB, 32 * MiB])(
    'copies in both directions with requests of %i bytes',
    async (size) => {
      const { uri, file, scratch, server } = await serveFile(40 * MiB);
      // As many connections as there are threads, whatever else it is told.
      const flags = ['--connections=8', '--threads=8', `--request-size=${size}`, '--flush'];
      const back = join(scratch, 'back.raw');
      const most = mostConnections(server);
      await succeeds('nbdcopy', [...flags, uri, back]);
      expect(most()).toBe(8);
      expect(Buffer.compare(await readFile(back), await readFile(file))).toBe(0);
      const fresh = await serveDevice(fakeDevice(40 * MiB));
      await succeeds('nbdcopy', [...flags, back, fresh.uri]);
      await succeeds('nbdcopy', [...flags, '--no-extents', fresh.uri, back]);
      expect(Buffer.compare(await readFile(back), await readFile(file))).toBe(0);
      await emptied(fresh.server);
    },
  );
});

describe('QEMU', () => {
  test('qemu-img converts, compares, maps and tells', async () => {
    const { uri, file, scratch } = await serveFile(30 * MiB);
    const back = join(scratch, 'back.raw');
    await succeeds('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', uri, back]);
    await succeeds('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', file, uri]);
    const fresh = await serveDevice(fakeDevice(30 * MiB));
    const way = ['convert', '-n', '-W', '-m', '16', '-f', 'raw', '-O', 'raw', back, fresh.uri];
    await succeeds('qemu-img', way);
    await succeeds('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', fresh.uri, file]);
    const info = JSON.parse(
      await succeeds('qemu-img', ['info', '--output=json', '-f', 'raw', uri]),
    );
    expect(info['virtual-size']).toBe(30 * MiB);
    const map = JSON.parse(await succeeds('qemu-img', ['map', '--output=json', '-f', 'raw', uri]));
    const local = JSON.parse(
      await succeeds('qemu-img', ['map', '--output=json', '-f', 'raw', file]),
    );
    const data = (extents: { data: boolean; start: number; length: number }[]) =>
      extents.filter(({ data }) => data).map(({ start, length }) => [start, length]);
    expect(data(map)).toEqual(data(local));
  });

  test('qemu-io writes with FUA, zeroes, discards and runs requests side by side', async () => {
    const { uri, server } = await serveDevice(fakeDevice(16 * MiB));
    const commands = [
      'write -f -P 1 0 1M',
      'aio_write -P 2 1M 2M',
      'aio_write -P 3 4M 4M',
      'aio_flush',
    ];
    commands.push('write -z 512k 64k', 'write -z -u 4M 1M', 'discard 8M 1M', 'flush');
    commands.push(
      'read -P 1 0 512k',
      'read -P 0 512k 64k',
      'aio_read -P 2 1M 2M',
      'aio_read -P 0 4M 1M',
    );
    commands.push(
      'aio_read -P 3 5M 3M',
      'aio_flush',
      'read 1 3',
      'write -P 9 3 5',
      'read -P 9 3 5',
    );
    const flags = commands.flatMap((command) => ['-c', command]);
    const stdout = await succeeds('qemu-io', ['-f', 'raw', ...flags, uri]);
    expect(stdout).not.toMatch(/failed|error/i);
    await emptied(server);
  });

  test('the dirty bitmap of an export drives a backup', async () => {
    const bitmap = new Bitmap({ size: 4 * MiB, granularity: 65536 });
    bitmap.set(MiB, MiB);
    const { path } = await serveDevice(fakeDevice(4 * MiB), { bitmaps: { b0: bitmap } });
    const options = ['driver=raw', 'file.driver=nbd', 'file.server.type=unix'];
    options.push(`file.server.path=${path}`, 'file.x-dirty-bitmap=qemu:dirty-bitmap:b0');
    const stdout = await succeeds('qemu-img', [
      'map',
      '--output=json',
      '--image-opts',
      options.join(','),
    ]);
    // QEMU shows dirty as "not data".
    const dirty = JSON.parse(stdout).filter(({ data }: { data: boolean }) => !data);
    expect(dirty).toMatchObject([{ start: MiB, length: MiB }]);
  });

  test('qemu-nbd lists the exports', async () => {
    const { path } = await serveDevice(fakeDevice(MiB), { name: 'x', description: 'words' });
    const stdout = await succeeds('qemu-nbd', ['--list', '--socket', path]);
    expect(stdout).toMatch(/export: 'x'[\s\S]*description: words[\s\S]*size: +1048576/);
  });
});

test("nbdkit's nbd plugin passes everything on", async () => {
  const { uri, file, scratch } = await serveFile(12 * MiB);
  const proxy = await peers.nbdkit(['nbd', `uri=${uri}`]);
  const back = join(scratch, 'back.raw');
  await succeeds('nbdcopy', [proxy.uri, back]);
  expect(Buffer.compare(await readFile(back), await readFile(file))).toBe(0);
  expect((await finish('nbdinfo', ['--can', 'fast-zero', proxy.uri])).code).toBe(0);
  expect(await succeeds('nbdinfo', ['--map', '--totals', proxy.uri])).toMatch(/hole,zero/);
});

test("fio's nbd engine verifies what it wrote", async () => {
  const { uri } = await serveDevice(fakeDevice(32 * MiB));
  const folder = await peers.folder();
  const job = [
    '--name=v',
    '--ioengine=nbd',
    `--uri=${uri}`,
    '--rw=randwrite',
    '--bsrange=512-256k',
  ];
  const rest = [
    '--iodepth=32',
    '--size=32M',
    '--verify=crc32c',
    '--do_verify=1',
    '--verify_fatal=1',
  ];
  const stdout = await succeeds('fio', [...job, ...rest, '--verify_backlog=0'], folder);
  expect(stdout).toMatch(/err= 0/);
});

/** libnbd checks what it sends, unless it is told not to. */
test('libnbd with its checks switched off is refused, request by request', async () => {
  const { uri, server } = await serveDevice(fakeDevice(MiB), { readOnly: false });
  const script = join(await peers.folder(), 'hostile.py');
  await writeFile(
    script,
    `
import errno, nbd, sys
h = nbd.NBD()
h.set_strict_mode(0)
h.add_meta_context("base:allocation")
h.connect_uri(sys.argv[1])
def fails(what, call, expected):
    try:
        call()
    except nbd.Error as e:
        assert e.errnum == expected, (what, e.errnum, e.string)
        return
    raise Exception(what + " succeeded")
size = h.get_size()
fails("read past the end", lambda: h.pread(512, size), errno.EINVAL)
fails("write past the end", lambda: h.pwrite(b"x" * 70000, size - 1), errno.ENOSPC)
fails("unknown flag", lambda: h.pwrite(b"x" * 512, 0, 0x8000), errno.EINVAL)
fails("flag of another command", lambda: h.pread(512, 0, nbd.CMD_FLAG_NO_HOLE), errno.EINVAL)
fails("zero past the end", lambda: h.zero(size, 1), errno.ENOSPC)
fails("huge read", lambda: h.pread(40 * 1024 * 1024, 0), errno.EINVAL)
fails("status of nothing", lambda: h.block_status(0, 0, lambda *a: 0), errno.EINVAL)
fails("status past the end", lambda: h.block_status(1, size, lambda *a: 0), errno.EINVAL)
h.pwrite(b"alive", 0)
assert h.pread(5, 0) == b"alive"
h.shutdown()
print("done")
`,
  );
  expect(await succeeds('/usr/bin/python3', [script, uri])).toBe('done\n');
  await emptied(server);
});

test('devices stay open when the server closes', async () => {
  const device: Device = fakeDevice(MiB);
  const { server } = await serveDevice(device);
  await server.close();
  await device.write(0, pattern(10));
});
