import { readFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer } from 'node:net';
import { openDevice } from 'lacuna';
import type { LacunaError } from 'lacuna/errors';
import { NbdClient, type NbdConnectOptions } from 'lacuna/nbd';
import { describe, expect, test } from 'vitest';
import { usePeers } from '../../support/peers.js';

const MIB = 2 ** 20;
const peers = usePeers();

async function open(
  args: readonly string[],
  options: Partial<NbdConnectOptions> = {},
): Promise<NbdClient> {
  const { server } = await peers.nbdkit(args);
  return NbdClient.connect({ server, ...options });
}

/** nbdkit's pattern: every eight bytes hold their own offset. */
function expectPattern(bytes: Uint8Array, offset: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = -offset & 7; at + 8 <= bytes.length; at += 8) {
    const found = Number(view.getBigUint64(at));
    if (found !== offset + at) throw new Error(`${found} at offset ${offset + at}`);
  }
}

/** Not by `toEqual`, which takes seconds for a megabyte. */
function expectBytes(found: Uint8Array, wanted: Uint8Array): void {
  expect(Buffer.compare(found, wanted)).toBe(0);
}

async function read(client: NbdClient, offset: number, length: number): Promise<Uint8Array> {
  const target = new Uint8Array(length).fill(0xee);
  await client.read(offset, target);
  return target;
}

describe('reading', () => {
  test.each([
    ['structured replies', []],
    ['simple replies', ['--no-sr']],
  ])('with %s, large and small requests of any alignment bring their bytes', async (_, args) => {
    const client = await open([...args, 'pattern', '64M']);
    expect(client.structured).toBe(args.length === 0);
    const requests = Array.from({ length: 200 }, (_, i) => ({
      offset: i * 300_007,
      length: [1, 511, 4096, 70_000, MIB][i % 5],
    }));
    const replies = await Promise.all(
      requests.map(({ offset, length }) => read(client, offset, length)),
    );
    for (const [i, bytes] of replies.entries()) expectPattern(bytes, requests[i].offset);
    await client.close();
  });

  test('a payload lands in shared memory', async () => {
    const client = await open(['pattern', '1M']);
    const target = new Uint8Array(new SharedArrayBuffer(256 * 1024), 4096, 128 * 1024);
    await client.read(65536, target);
    expectPattern(new Uint8Array(target), 65536);
    await client.close();
  });

  test('replies out of order reach their own requests', async () => {
    const client = await open([...['-t', '16', '--filter=delay', 'pattern', '64M', 'rdelay=20ms']]);
    const offsets = Array.from({ length: 64 }, (_, i) => i * 65536);
    const replies = await Promise.all(offsets.map((offset) => read(client, offset, 40_000)));
    for (const [i, bytes] of replies.entries()) expectPattern(bytes, offsets[i]);
    await client.close();
  });

  test('an export whose size is no multiple of what it takes fails at its tail, and is not cut short', async () => {
    const { uri } = await peers.nbdkit([
      ...['--filter=blocksize-policy', 'pattern', '1000001', 'blocksize-minimum=4096'],
      ...['blocksize-preferred=64K', 'blocksize-maximum=1M', 'blocksize-error-policy=error'],
    ]);
    await using device = await openDevice(uri);
    expect(device.size).toBe(1_000_001);
    const whole = new Uint8Array(4096);
    await device.read(995_328 - 4096, whole);
    expectPattern(whole, 995_328 - 4096);
    await expect(device.read(999_000, new Uint8Array(1001))).rejects.toMatchObject({
      code: 'ERR_NBD_REMOTE',
      errno: 'EINVAL',
    });
  });

  test('an export of an odd size is read to its last byte', async () => {
    const client = await open(['pattern', '1000001']);
    expect(client.size).toBe(1_000_001);
    expect(client.minimumBlock).toBe(1);
    expectPattern(await read(client, 999_000, 1001), 999_000);
    await expect(read(client, 1_000_000, 2)).rejects.toThrow(RangeError);
    await client.close();
  });
});

test('over TCP, by a name with several addresses', async () => {
  const { server } = await peers.nbdkit(['pattern', '16M']);
  const relay = createServer((socket) => {
    const onward = connect(server);
    socket.pipe(onward).pipe(socket);
    socket.on('error', () => onward.destroy());
  });
  await new Promise<void>((resolve) => relay.listen(0, '127.0.0.1', resolve));
  const { port } = relay.address() as AddressInfo;
  const inet = { type: 'inet' as const, host: 'localhost', port };
  const client = await NbdClient.connect({ server: inet });
  expect(client.name).toBe(`nbd://localhost:${port}/`);
  const replies = await Promise.all([0, 1, 2].map((i) => read(client, i * MIB, MIB)));
  for (const [i, bytes] of replies.entries()) expectPattern(bytes, i * MIB);
  await client.close();
  await new Promise((resolve) => relay.close(resolve));
  await expect(NbdClient.connect({ server: inet })).rejects.toMatchObject({
    code: 'ERR_NBD_DISCONNECTED',
    errno: 'ECONNREFUSED',
  });
});

describe('errors', () => {
  test('a refused read names errno, device and range, and the connection lives on', async () => {
    const { server } = await peers.nbdkit([
      ...['--filter=error', 'pattern', '1M', 'error-pread=EIO', 'error-pread-rate=50%'],
    ]);
    const client = await NbdClient.connect({ server });
    const results = await Promise.allSettled(
      Array.from({ length: 200 }, (_, i) => read(client, i * 512, 512)),
    );
    const failed = results.flatMap((result, i) =>
      result.status === 'rejected' ? [[i, result.reason as LacunaError] as const] : [],
    );
    expect(failed.length).toBeGreaterThan(20);
    expect(failed.length).toBeLessThan(180);
    for (const [i, error] of failed) {
      expect(error).toMatchObject({
        code: 'ERR_NBD_REMOTE',
        errno: 'EIO',
        device: client.name,
        offset: i * 512,
        length: 512,
      });
    }
    await client.close();
  });

  test('a server that shuts down takes no new requests', async () => {
    const client = await open([
      ...['--filter=error', 'pattern', '1M', 'error-pread=ESHUTDOWN', 'error-pread-rate=100%'],
    ]);
    await expect(read(client, 0, 512)).rejects.toMatchObject({ errno: 'ESHUTDOWN' });
    expect(client.shuttingDown).toBe(true);
    await expect(read(client, 0, 512)).rejects.toMatchObject({
      code: 'ERR_NBD_DISCONNECTED',
      retryable: true,
    });
    await client.close();
  });

  test('a server that is killed fails each request in flight once', async () => {
    const peer = await peers.nbdkit(['--filter=delay', 'pattern', '1M', 'rdelay=60']);
    const client = await NbdClient.connect({ server: peer.server });
    const reads = Array.from({ length: 8 }, (_, i) => read(client, i * 512, 512));
    const results = Promise.allSettled(reads);
    await new Promise((resolve) => setTimeout(resolve, 50));
    await peer.stop('SIGKILL');
    for (const result of await results) {
      expect(result).toMatchObject({
        status: 'rejected',
        reason: { code: 'ERR_NBD_DISCONNECTED', retryable: true, length: 512 },
      });
    }
    await client.close();
  });

  test('nobody listening is a lost connection with the errno of the system', async () => {
    const folder = await peers.folder();
    const server = { type: 'unix' as const, path: `${folder}/nobody` };
    await expect(NbdClient.connect({ server })).rejects.toMatchObject({
      code: 'ERR_NBD_DISCONNECTED',
      errno: 'ENOENT',
      retryable: true,
    });
  });

  test('a server that serves others first runs into the limit of the handshake', async () => {
    const peer = await peers.nbdkit(['--filter=delay', 'pattern', '1M', 'delay-open=60']);
    const connecting = NbdClient.connect({ server: peer.server, connectTimeoutMs: 200 });
    await expect(connecting).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
  });

  test('a request that makes no progress runs into its limit', async () => {
    const client = await open(['--filter=delay', 'pattern', '1M', 'rdelay=60'], {
      requestTimeoutMs: 200,
    });
    await expect(read(client, 0, 512)).rejects.toMatchObject({ code: 'ERR_TIMEOUT' });
    await client.close();
  });
});

describe('handshakes', () => {
  test.each([
    ['plain newstyle', ['--mask-handshake=0'], false],
    ['fixed newstyle with its zeroes', ['--mask-handshake=1'], true],
  ])('%s works', async (_, args, structured) => {
    const client = await open([...args, 'pattern', '1M']);
    expect(client).toMatchObject({ size: MIB, structured });
    expectPattern(await read(client, 8192, 100_000), 8192);
    await client.close();
  });

  test('oldstyle is refused with its reason', async () => {
    await expect(open(['-o', 'pattern', '1M'])).rejects.toMatchObject({
      code: 'ERR_NBD_UNSUPPORTED',
      message: expect.stringContaining('oldstyle'),
    });
  });

  test('an export that does not exist is told by its name', async () => {
    const folder = await peers.folder();
    await expect(open(['file', `dir=${folder}`], { export: 'nothing here' })).rejects.toMatchObject(
      {
        code: 'ERR_DEVICE_OPEN',
        message: expect.stringContaining('"nothing here"'),
      },
    );
  });

  test('a context that is not granted is told by its name', async () => {
    const contexts = ['qemu:dirty-bitmap:nightly'];
    await expect(open(['pattern', '1M'], { contexts })).rejects.toMatchObject({
      code: 'ERR_CONTEXT_UNKNOWN',
      message: expect.stringContaining('"qemu:dirty-bitmap:nightly"'),
    });
    await expect(open(['--no-sr', 'pattern', '1M'], { contexts })).rejects.toMatchObject({
      code: 'ERR_CONTEXT_UNKNOWN',
      message: expect.stringContaining('structured replies'),
    });
  });

  test.each(['9223372036854775807', '8P'])('a size of %s is refused', async (size) => {
    await expect(open(['pattern', size])).rejects.toMatchObject({
      code: 'ERR_NBD_UNSUPPORTED',
      message: expect.stringContaining('larger than 9007199254740991 bytes (8 PiB - 1)'),
    });
  });

  test('block sizes are told, and obeyed in what is allowed', async () => {
    const client = await open([
      ...['--filter=blocksize-policy', 'pattern', '64M', 'blocksize-minimum=4096'],
      ...['blocksize-preferred=64K', 'blocksize-maximum=1M', 'blocksize-error-policy=error'],
    ]);
    expect(client).toMatchObject({
      minimumBlock: 4096,
      preferredBlock: 65536,
      maximumPayload: MIB,
      maximumLength: 2 ** 32 - 65536,
    });
    expectPattern(await read(client, 4096, MIB), 4096);
    await expect(read(client, 0, MIB + 4096)).rejects.toThrow(RangeError);
    await expect(read(client, 1, 4096)).rejects.toThrow('whole blocks of 4096 bytes');
    await expect(client.blockStatus(0, 512, ['base:allocation'])).rejects.toThrow(RangeError);
    await client.close();
  });

  test('the exports are listed', async () => {
    const peer = await peers.nbdkit(
      ['--filter=exportname', 'pattern', '1M'].concat(
        'exportname=a',
        'exportname=b ü',
        'exportname-list=explicit',
        'exportdesc=fixed:words',
      ),
    );
    expect(await NbdClient.list(peer.server)).toEqual([
      { name: 'a', description: 'words' },
      { name: 'b ü', description: 'words' },
    ]);
  });
});

describe('asking without using', () => {
  test('an export is described, with every context that it has', async () => {
    const { server } = await peers.nbdkit([
      ...['--filter=exportname', 'sparse-random', '1G', 'exportdesc=fixed:words'],
    ]);
    const info = await NbdClient.info(server);
    expect(info).toMatchObject({ size: 2 ** 30, description: 'words', canDontFragment: true });
    expect(info).toMatchObject({ contexts: ['base:allocation'], extended: false });
  });

  test('an export that is not there is told', async () => {
    const { server } = await peers.nbdkit(['file', `dir=${await peers.folder()}`]);
    await expect(NbdClient.info(server, { export: 'nothing' })).rejects.toMatchObject({
      code: 'ERR_DEVICE_OPEN',
    });
  });
});

describe('flags', () => {
  test('a read may be asked for in one piece, and a range announced', async () => {
    const client = await open(['--filter=cache', 'pattern', '64M']);
    expect(client).toMatchObject({ canCache: true, canDontFragment: true });
    await client.cache(0, 64 * MIB);
    const target = new Uint8Array(MIB);
    await client.read(4096, target, { dontFragment: true });
    expectPattern(target, 4096);
    await client.close();
    const simple = await open(['--no-sr', 'pattern', '1M']);
    await expect(simple.read(0, target, { dontFragment: true })).rejects.toMatchObject({
      code: 'ERR_NBD_UNSUPPORTED',
    });
    await simple.close();
  });

  test('status may be asked for one extent', async () => {
    const client = await open(['sparse-random', '1G', 'seed=1', 'runlength=4096']);
    const ask = (one: boolean) => client.blockStatus(0, 2 ** 30, ['base:allocation'], { one });
    const [[many], [single]] = [await ask(false), await ask(true)];
    expect(many.count).toBeGreaterThan(1);
    expect(single.count).toBe(1);
    expect(single.endAt(0)).toBe(many.endAt(0));
    await client.close();
  });
});

describe('changing', () => {
  test('what is longer than 4 GiB is zeroed and trimmed by several requests', async () => {
    const log = `${await peers.folder()}/log`;
    const client = await open(['--filter=log', 'memory', '9G', `logfile=${log}`]);
    await client.write(9 * 2 ** 30 - 512, new Uint8Array(512).fill(7));
    await client.writeZeroes(512, 9 * 2 ** 30 - 512, { fua: true });
    await client.trim(0, 9 * 2 ** 30, { fua: true });
    expectBytes(await read(client, 9 * 2 ** 30 - 512, 512), new Uint8Array(512));
    await client.close();
    const ranges = [...(await readFile(log, 'utf8')).matchAll(/ (Zero|Trim) id=.*?fua=1/g)];
    const offsets = ranges.map(([text]) => Number(/offset=(0x[0-9a-f]+)/.exec(text)?.[1]));
    const piece = 2 ** 32 - 4096;
    expect(offsets).toEqual([...[512, 512 + piece, 512 + 2 * piece], ...[0, piece, 2 * piece]]);
  });

  test('a server that takes no long zero and trim requests is asked for shorter ones', async () => {
    const log = `${await peers.folder()}/log`;
    const limited = (name: string) =>
      `${name}=echo ${name} $3 $4 >>${log}; ` +
      'if [ $3 -gt 67108864 ]; then echo EOVERFLOW too long >&2; exit 1; fi';
    const client = await open([
      ...['eval', 'get_size=echo 256M', 'block_size=echo 4096 4096 67108864'],
      ...['can_write=exit 0', 'can_zero=exit 0', 'can_trim=exit 0'],
      ...['pread=exit 1', 'pwrite=exit 1', limited('zero'), limited('trim')],
    ]);
    const most = 2 ** 26;
    await client.writeZeroes(4096, 2 * most);
    await client.trim(0, 2 * most);
    await client.close();
    const zeroes = [`zero ${2 * most} 4096`, `zero ${most} 4096`, `zero ${most} ${4096 + most}`];
    const trims = [`trim ${most} 0`, `trim ${most} ${most}`];
    expect((await readFile(log, 'utf8')).trim().split('\n')).toEqual([...zeroes, ...trims]);
  });

  test('a server that refuses a range of any length is believed in the end', async () => {
    const log = `${await peers.folder()}/log`;
    const client = await open([
      ...['eval', 'get_size=echo 1G', 'can_write=exit 0', 'can_zero=exit 0', 'pread=exit 1'],
      ...['pwrite=exit 1', `zero=echo $3 >>${log}; echo EINVAL never >&2; exit 1`],
    ]);
    const refused = { code: 'ERR_NBD_REMOTE', errno: 'EINVAL', offset: 0, length: 32 * MIB };
    await expect(client.writeZeroes(0, 2 ** 30)).rejects.toMatchObject(refused);
    await client.close();
    const asked = (await readFile(log, 'utf8')).trim().split('\n').map(Number);
    expect(asked).toEqual([2 ** 30, 32 * MIB]);
  });

  test('what is written, zeroed and trimmed is read back', async () => {
    const client = await open(['memory', '64M']);
    const bytes = new Uint8Array(MIB).map((_, i) => i * 7);
    await Promise.all(
      Array.from({ length: 32 }, (_, i) => client.write(i * MIB, bytes, { fua: i % 2 === 0 })),
    );
    await client.flush();
    for (let i = 0; i < 32; i++) expectBytes(await read(client, i * MIB, MIB), bytes);
    await client.writeZeroes(4096, 8192, { unmap: false });
    await client.writeZeroes(2 * MIB, MIB);
    await client.trim(3 * MIB, MIB);
    expectBytes(await read(client, 4096, 8192), new Uint8Array(8192));
    expectBytes(await read(client, 2 * MIB, MIB), new Uint8Array(MIB));
    const [list] = await client.blockStatus(0, 64 * MIB, ['base:allocation']);
    expect(list.flagsAt(list.indexOf(2 * MIB))).toBe(6);
    await client.close();
  });

  test('bytes go out from shared memory', async () => {
    const client = await open(['memory', '1M']);
    const source = new Uint8Array(new SharedArrayBuffer(256 * 1024), 4096, 128 * 1024);
    source.set(Uint8Array.from(source, (_, i) => i * 3));
    await client.write(512, source);
    expectBytes(await read(client, 512, source.length), new Uint8Array(source));
    await client.close();
  });

  test('4 KiB writes by the thousand arrive where they belong', async () => {
    const client = await open(['memory', '64M']);
    const block = (i: number) => new Uint8Array(4096).fill(i % 251);
    await Promise.all(Array.from({ length: 4000 }, (_, i) => client.write(i * 4096, block(i))));
    const all = await read(client, 0, 4000 * 4096);
    for (let i = 0; i < 4000; i++) {
      expect(all[i * 4096] + all[i * 4096 + 4095]).toBe((i % 251) * 2);
    }
    await client.close();
  });

  test('a read-only export and one without zero requests refuse by capability', async () => {
    const readOnly = await open(['-r', 'memory', '1M']);
    await expect(readOnly.write(0, new Uint8Array(512))).rejects.toMatchObject({
      code: 'ERR_NBD_UNSUPPORTED',
    });
    await readOnly.close();
    const plain = await open(['--filter=nozero', 'memory', '1M']);
    expect(plain.canWriteZeroes).toBe(false);
    await expect(plain.writeZeroes(0, 512)).rejects.toMatchObject({ code: 'ERR_NBD_UNSUPPORTED' });
    await plain.close();
  });

  test('a fast zero that would be slow is refused with ENOTSUP', async () => {
    const client = await open([
      ...['--filter=nozero', 'memory', '1M', 'zeromode=emulate', 'fastzeromode=slow'],
    ]);
    expect(client.canFastZero).toBe(true);
    await expect(client.writeZeroes(0, MIB, { fast: true })).rejects.toMatchObject({
      errno: 'ENOTSUP',
    });
    await client.close();
  });

  test('a full disk is ENOSPC', async () => {
    const client = await open(['full', '1M']);
    await expect(client.write(0, new Uint8Array(65536))).rejects.toMatchObject({
      errno: 'ENOSPC',
      retryable: false,
    });
    await client.close();
  });
});

describe('status', () => {
  test('all four kinds of extent are translated', async () => {
    const folder = await peers.folder();
    const { writeFile } = await import('node:fs/promises');
    await writeFile(`${folder}/e`, '0 64K\n64K 64K hole,zero\n128K 64K hole\n192K 64K zero\n');
    const client = await open([
      ...['-r', '--filter=extentlist', 'pattern', '256K', `extentlist=${folder}/e`],
    ]);
    const [list] = await client.blockStatus(0, client.size, ['base:allocation']);
    expect([...list].map(({ length, flags }) => [length, flags])).toEqual([
      [65536, 1],
      [65536, 6],
      [65536, 4],
      [65536, 2],
    ]);
    await client.close();
  });

  test('a large sparse disk is mapped in few requests, all bytes accounted for', async () => {
    const client = await open(['sparse-random', '256G', 'seed=1', 'runlength=268435456']);
    let at = 0;
    let requests = 0;
    while (at < client.size) {
      const [list] = await client.blockStatus(at, client.size - at, ['base:allocation']);
      expect(list.offset).toBe(at);
      expect(list.end).toBeGreaterThan(at);
      at = list.end;
      requests++;
    }
    expect(at).toBe(client.size);
    expect(requests).toBeLessThan(400);
    await client.close();
  });

  test('without extents everything is data; without structured replies there is no status', async () => {
    const client = await open(['--filter=noextents', 'memory', '1M']);
    const [list] = await client.blockStatus(0, MIB, ['base:allocation']);
    expect([...list]).toEqual([{ offset: 0, length: MIB, flags: 1 }]);
    await client.close();
    const simple = await open(['--no-sr', 'memory', '1M']);
    expect(simple.contexts).toEqual([]);
    await expect(simple.blockStatus(0, MIB, ['base:allocation'])).rejects.toMatchObject({
      code: 'ERR_CONTEXT_UNKNOWN',
    });
    await simple.close();
  });

  test('extents that fail leave the connection usable', async () => {
    const client = await open([
      ...['--filter=error', 'sparse-random', '1G', 'error-extents-rate=1'],
    ]);
    await expect(client.blockStatus(0, MIB, ['base:allocation'])).rejects.toMatchObject({
      code: 'ERR_NBD_REMOTE',
      errno: 'EIO',
    });
    await read(client, 0, 4096);
    await client.close();
  });
});

describe('giving up', () => {
  test('an aborted read rejects at once, its target stays as it is, the connection in step', async () => {
    const peer = await peers.nbdkit(['pattern', '16M']);
    const client = await NbdClient.connect({ server: peer.server });
    // It answers nothing until it is told to go on.
    process.kill(peer.pid, 'SIGSTOP');
    const controller = new AbortController();
    const target = new Uint8Array(MIB).fill(0xee);
    const reading = client.read(0, target, controller);
    const others = Array.from({ length: 4 }, (_, i) => read(client, i * MIB, MIB));
    let answered = 0;
    for (const other of others) void other.then(() => answered++);
    setTimeout(() => controller.abort(), 20);
    await expect(reading).rejects.toMatchObject({ code: 'ERR_ABORTED', name: 'AbortError' });
    expect(answered).toBe(0);
    process.kill(peer.pid, 'SIGCONT');
    for (const [i, other] of others.entries()) expectPattern(await other, i * MIB);
    expect(target.every((byte) => byte === 0xee)).toBe(true);
    expectPattern(await read(client, 4096, MIB), 4096);
    await client.close();
  });

  test('one signal serves any number of requests, and warns of nothing', async () => {
    const warnings: Error[] = [];
    const onWarning = (warning: Error) => warnings.push(warning);
    process.on('warning', onWarning);
    const client = await open(['--filter=delay', 'pattern', '1M', 'rdelay=10']);
    const controller = new AbortController();
    const reads = Array.from({ length: 100 }, (_, i) =>
      client.read(i * 512, new Uint8Array(512), controller),
    );
    const results = Promise.allSettled(reads);
    controller.abort();
    for (const result of await results) {
      expect(result).toMatchObject({ reason: { code: 'ERR_ABORTED' } });
    }
    await new Promise((resolve) => setImmediate(resolve));
    process.off('warning', onWarning);
    expect(warnings).toEqual([]);
  });

  test('closing waits for what is in flight and may be asked twice', async () => {
    const client = await open(['--filter=delay', 'pattern', '1M', 'rdelay=100ms']);
    const reading = read(client, 0, 65536);
    await Promise.all([client.close(), client.close()]);
    expectPattern(await reading, 0);
    await expect(read(client, 0, 512)).rejects.toMatchObject({ code: 'ERR_DEVICE_CLOSED' });
  });
});
