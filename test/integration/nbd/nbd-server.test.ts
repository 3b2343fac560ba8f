import { readFile, writeFile } from 'node:fs/promises';
import { NbdClient } from 'lacuna/nbd';
import { describe, expect, test } from 'vitest';
import { run, type SocketPeer, usePeers } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';

const MIB = 2 ** 20;
const peers = usePeers();
/** A process is started for each client, which takes its time on a busy machine. */
const patiently = { connectTimeoutMs: 120_000 };

interface Disk {
  readonly peer: SocketPeer;
  readonly path: string;
  /** What is in the file at first. */
  readonly bytes: Buffer;
}

/** A file of 8 MiB with bytes that differ, as `disk` with all that nbd-server can, and as `archive` to read. */
async function disk(): Promise<Disk> {
  const path = `${await peers.folder()}/disk.raw`;
  const bytes = Buffer.from(Uint32Array.from({ length: 2 * MIB }, (_, i) => i * 2654435761).buffer);
  await writeFile(path, bytes);
  const able = { flush: true, fua: true, trim: true };
  const peer = await peers.nbdServer({
    disk: { exportname: path, ...able },
    archive: { exportname: path, readonly: true },
  });
  return { peer, path, bytes };
}

describe('nbd-server', () => {
  test('lists its exports', async () => {
    const { peer } = await disk();
    const names = (await NbdClient.list(peer.server, patiently)).map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(['disk', 'archive']));
  });

  test('knows neither structured replies nor contexts, and is read the plain way', async () => {
    const { peer, bytes } = await disk();
    const client = await NbdClient.connect({ ...patiently, server: peer.server, export: 'disk' });
    expect(client.agreement).toMatchObject({ structured: false, extended: false, contexts: [] });
    expect(client).toMatchObject({ size: 8 * MIB, readOnly: false, contexts: [] });
    expect(client).toMatchObject({ canFlush: true, canFua: true, canTrim: true });
    expect(client).toMatchObject({ canWriteZeroes: true, canFastZero: false, canCache: false });
    const target = new Uint8Array(8 * MIB);
    // Replies of its threads come in any order, and small ones in between are told apart by their cookies alone.
    const lengths = [512, 4096, 65536, 262144, MIB];
    const reads: Promise<void>[] = [];
    for (let at = 0, i = 0; at < target.length; i++) {
      const end = Math.min(at + lengths[i % lengths.length], target.length);
      reads.push(client.read(at, target.subarray(at, end)));
      at = end;
    }
    await Promise.all(reads);
    expect(bytes.equals(target)).toBe(true);
    await client.close();
  });

  test('what is written, zeroed, trimmed and flushed is in its file', async () => {
    const { peer, path, bytes } = await disk();
    const client = await NbdClient.connect({ ...patiently, server: peer.server, export: 'disk' });
    const written = Buffer.alloc(3 * MIB, 0x5a);
    await Promise.all([
      client.write(512, written.subarray(0, 512), { fua: true }),
      client.write(MIB, written),
      client.writeZeroes(5 * MIB, MIB, { unmap: false }),
      client.writeZeroes(6 * MIB, 65536),
      client.trim(7 * MIB, 65536),
    ]);
    await client.flush();
    await client.close();
    written.copy(bytes, 512, 0, 512);
    written.copy(bytes, MIB);
    bytes.fill(0, 5 * MIB, 6 * MIB + 65536);
    const found = await readFile(path);
    // What a trim leaves is undefined; all else is not.
    bytes.copy(found, 7 * MIB, 7 * MIB, 7 * MIB + 65536);
    expect(found.equals(bytes)).toBe(true);
  });

  test('flushes what several connections wrote, for it says that it can', async () => {
    const { peer, path } = await disk();
    const connect = () => NbdClient.connect({ ...patiently, server: peer.server, export: 'disk' });
    const [one, other] = await Promise.all([connect(), connect()]);
    expect(one.canMultiConn).toBe(true);
    await one.write(0, new Uint8Array(4096).fill(1));
    await other.flush();
    const target = new Uint8Array(4096);
    await other.read(0, target);
    expect(target.every((byte) => byte === 1)).toBe(true);
    await Promise.all([one.close(), other.close()]);
    expect((await readFile(path)).subarray(0, 4096).every((byte) => byte === 1)).toBe(true);
  });

  test('a read-only export cannot be changed, and offers nothing that would', async () => {
    const { peer } = await disk();
    const client = await NbdClient.connect({
      ...patiently,
      server: peer.server,
      export: 'archive',
    });
    expect(client).toMatchObject({ readOnly: true, canTrim: false, canFlush: false });
    await expect(client.write(0, new Uint8Array(512))).rejects.toMatchObject({
      code: 'ERR_NBD_UNSUPPORTED',
    });
    await client.close();
  });

  test('an export that it does not have is refused with a reason', async () => {
    const { peer } = await disk();
    const connecting = NbdClient.connect({ ...patiently, server: peer.server, export: 'tape' });
    await expect(connecting).rejects.toMatchObject({ code: 'ERR_DEVICE_OPEN' });
    await expect(connecting).rejects.toThrow(/no such export/);
  });

  test('does not know the size before an export is entered; asking says 0', async () => {
    const { peer } = await disk();
    expect(await NbdClient.info(peer.server, { export: 'disk' })).toMatchObject({
      size: 0,
      canTrim: true,
    });
    const { stdout } = await runCli([
      'info',
      '--json',
      `nbd+unix:///disk?socket=${peer.server.path}`,
    ]);
    expect(JSON.parse(stdout)).toMatchObject({ size: 8 * MIB });
  });

  test('a context that is asked for is an error, not an empty answer', async () => {
    const { peer } = await disk();
    const asked = { export: 'disk', contexts: ['qemu:dirty-bitmap:b'] };
    const connecting = NbdClient.connect({ server: peer.server, ...asked });
    await expect(connecting).rejects.toMatchObject({ code: 'ERR_CONTEXT_UNKNOWN' });
  });

  test('is copied from and to, byte for byte', async () => {
    const { peer, path } = await disk();
    const folder = await peers.folder();
    const uri = (name: string) => `nbd+unix:///${name}?socket=${peer.server.path}`;
    const away = await runCli(['copy', uri('archive'), `${folder}/away.raw`]);
    expect([away.code, away.stderr]).toEqual([0, '']);
    await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', path, `${folder}/away.raw`]);
    // Half of it zero, so that zeroes are written where nobody knows what was there.
    const half = Buffer.concat([Buffer.alloc(4 * MIB), Buffer.alloc(4 * MIB, 3)]);
    await writeFile(`${folder}/half.raw`, half);
    const back = await runCli(['copy', `${folder}/half.raw`, uri('disk')]);
    expect([back.code, back.stderr]).toEqual([0, '']);
    expect((await readFile(path)).equals(half)).toBe(true);
  });
});
