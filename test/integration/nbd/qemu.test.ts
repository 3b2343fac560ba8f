import { truncate, writeFile } from 'node:fs/promises';
import { NbdClient } from 'lacuna/nbd';
import { describe, expect, test } from 'vitest';
import { run, usePeers } from '../../support/peers.js';

const MIB = 2 ** 20;
const peers = usePeers();

async function image(name: string, options: string, size: string): Promise<string> {
  const path = `${await peers.folder()}/${name}`;
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...options.split(' '), path, size]);
  return path;
}

async function write(path: string, ...commands: readonly string[]): Promise<void> {
  const args = commands.flatMap((command) => ['-c', command]);
  await run('qemu-io', ['-f', 'qcow2', ...args, path]);
}

const pairs = (list: Iterable<{ length: number; flags: number }>) =>
  [...list].map(({ length, flags }) => [length, flags]);

describe('qemu-nbd', () => {
  test('a fragmented read puts data and holes together', async () => {
    const path = await image('a.qcow2', '-o cluster_size=512', '1M');
    const odd = Array.from(
      { length: 256 },
      (_, i) => `write -q -P ${1 + (i % 250)} ${i * 1024} 512`,
    );
    await write(path, ...odd);
    const { server } = await peers.qemuNbd(['-f', 'qcow2', path]);
    const client = await NbdClient.connect({ server });
    const target = new Uint8Array(256 * 1024).fill(0xee);
    await client.read(0, target);
    for (let i = 0; i < 256; i++) {
      expect(target.subarray(i * 1024, i * 1024 + 512).every((b) => b === 1 + (i % 250))).toBe(
        true,
      );
      expect(target.subarray(i * 1024 + 512, (i + 1) * 1024).every((b) => b === 0)).toBe(true);
    }
    await client.close();
  });

  test('allocation and a dirty bitmap are told together, many extents at once', async () => {
    const path = await image('b.qcow2', '-o cluster_size=64k', '64M');
    await write(path, 'write -q 0 1M');
    await run('qemu-img', ['bitmap', '--add', '-g', '65536', path, 'nightly']);
    const dirty = Array.from({ length: 100 }, (_, i) => `write -q ${2 * MIB + i * 131072} 64k`);
    await write(path, ...dirty);
    const { server } = await peers.qemuNbd(['-f', 'qcow2', '-r', '-B', 'nightly', '-A', path]);
    const names = ['qemu:dirty-bitmap:nightly', 'qemu:allocation-depth'];
    const client = await NbdClient.connect({ server, contexts: names });
    expect(new Set(client.contexts)).toEqual(new Set(['base:allocation', ...names]));
    const [bitmap, allocation] = await client.blockStatus(0, client.size, [
      names[0],
      'base:allocation',
    ]);
    expect(bitmap.count).toBe(201);
    expect(allocation.count).toBe(202);
    expect(pairs(bitmap).slice(0, 3)).toEqual([
      [2 * MIB, 0],
      [65536, 1],
      [65536, 0],
    ]);
    expect(pairs(allocation).slice(0, 3)).toEqual([
      [MIB, 1],
      [MIB, 6],
      [65536, 1],
    ]);
    expect([bitmap.end, allocation.end]).toEqual([64 * MIB, 64 * MIB]);
    await client.close();
  });

  test('a raw file is written, zeroed, trimmed and flushed', async () => {
    const path = `${await peers.folder()}/raw`;
    await writeFile(path, Buffer.alloc(8 * MIB, 7));
    const { server } = await peers.qemuNbd(['-f', 'raw', '--discard=unmap', path]);
    const client = await NbdClient.connect({ server });
    expect(client).toMatchObject({ canFlush: true, canFua: true, canFastZero: true });
    expect(client).toMatchObject({ minimumBlock: 1, maximumPayload: 32 * MIB });
    const bytes = new Uint8Array(MIB).fill(9);
    await client.write(1, bytes, { fua: true });
    await client.writeZeroes(4 * MIB, MIB);
    await client.trim(6 * MIB, MIB);
    await client.flush();
    const target = new Uint8Array(8 * MIB);
    await client.read(0, target);
    expect([target[0], target[1], target[MIB], target[MIB + 1]]).toEqual([7, 9, 9, 7]);
    expect(target.subarray(4 * MIB, 5 * MIB).every((byte) => byte === 0)).toBe(true);
    await client.close();
  });

  test('more is read ahead than one request may ask for', async () => {
    const path = `${await peers.folder()}/large`;
    await writeFile(path, '');
    await truncate(path, 128 * MIB);
    const { server } = await peers.qemuNbd(['-f', 'raw', path]);
    const client = await NbdClient.connect({ server });
    await client.cache(1, 128 * MIB - 1);
    await client.close();
  });

  test('an odd size is told and its last bytes are read', async () => {
    const path = `${await peers.folder()}/odd`;
    await writeFile(path, Buffer.alloc(1001, 5));
    const { server } = await peers.qemuNbd(['-f', 'raw', path]);
    const client = await NbdClient.connect({ server });
    const target = new Uint8Array(client.size);
    await client.read(0, target);
    expect(target.subarray(0, 1001).every((byte) => byte === 5)).toBe(true);
    await client.close();
  });
});

test('an export of qemu-storage-daemon is read by its name', async () => {
  const path = await image('c.qcow2', '-o cluster_size=64k', '4M');
  await write(path, 'write -q -P 3 1M 1M');
  const peer = await peers.storageDaemon([
    ...['--blockdev', `driver=file,node-name=f,filename=${path}`],
    ...['--blockdev', 'driver=qcow2,node-name=q,file=f'],
    ...['--export', 'type=nbd,id=e,node-name=q,name=my disk,writable=on'],
  ]);
  expect(await NbdClient.list(peer.server)).toEqual([{ name: 'my disk', description: '' }]);
  const client = await NbdClient.connect({ server: peer.server, export: 'my disk' });
  const target = new Uint8Array(MIB);
  await client.read(MIB, target);
  expect(target.every((byte) => byte === 3)).toBe(true);
  await client.close();
});
