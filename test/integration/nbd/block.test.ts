import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openDevice } from '#dist/block/index.js';
import { DIRTY, ExtentList, Status } from '#dist/extent/index.js';
import { fakeDevice } from '../../support/fake-device.js';
import { serveHostile } from '../../support/hostile-nbd.js';
import { statusChunk } from '../../support/hostile-nbd-wire.js';
import { run, usePeers } from '../../support/peers.js';

const MIB = 1024 * 1024;
const peers = usePeers();

/** An export of nbdkit that notes each request in a file. */
async function logged(...parameters: string[]) {
  const log = join(await peers.folder(), 'log');
  const filters = ['--filter=log', '--filter=fua'];
  const { uri } = await peers.nbdkit([...filters, 'memory', '1M', ...parameters, `logfile=${log}`]);
  const device = await openDevice(uri, { writable: true });
  const requests = () =>
    [...readFileSync(log, 'utf8').matchAll(/ (Write|Zero|Flush|Trim) id=\d+ ?([^.]*)/g)].map(
      ([, kind, what]) => `${kind} ${what}`.trim(),
    );
  return { device, requests };
}

describe('a request that must be durable', () => {
  it('is told so where the server can do it', async () => {
    const { device, requests } = await logged('fuamode=force');
    await device.write(0, new Uint8Array(512), { fua: true });
    await device.zero(512, 512, { fua: true });
    await device.close();
    expect(requests()).toEqual([
      'Write offset=0x0 count=0x200 fua=1',
      'Zero offset=0x200 count=0x200 trim=1 fua=1 fast=0',
    ]);
  });

  it('is followed by a flush where the server cannot', async () => {
    const { device, requests } = await logged();
    await device.write(0, new Uint8Array(512), { fua: true });
    await device.zero(512, 512, { fua: true });
    await device.write(0, new Uint8Array(512));
    await device.close();
    expect(requests()).toEqual([
      'Write offset=0x0 count=0x200 fua=0',
      'Flush',
      'Zero offset=0x200 count=0x200 trim=1 fua=0 fast=0',
      'Flush',
      'Write offset=0x0 count=0x200 fua=0',
    ]);
  });
});

describe('a fast zero', () => {
  it('is refused in the words of devices where it would be slow', async () => {
    const slow = ['zeromode=emulate', 'fastzeromode=slow'];
    const { uri } = await peers.nbdkit(['--filter=nozero', 'memory', '1M', ...slow]);
    await using device = await openDevice(uri, { writable: true });
    expect(device.capabilities.fastZero).toBe(true);
    await expect(device.zero(0, MIB, { fast: true })).rejects.toMatchObject({
      code: 'ERR_DEVICE_UNSUPPORTED',
      cause: { code: 'ERR_NBD_REMOTE', errno: 'ENOTSUP' },
    });
    await device.zero(0, MIB);
  });
});

describe('errors of the server', () => {
  it('come as they are, with the place', async () => {
    const { uri } = await peers.nbdkit(['full', '1M']);
    await using device = await openDevice(uri, { writable: true });
    await expect(device.write(512, new Uint8Array(512))).rejects.toMatchObject({
      code: 'ERR_NBD_REMOTE',
      errno: 'ENOSPC',
      offset: 512,
      length: 512,
      device: device.name,
    });
  });

  it('are not taken for a lack of support: zeroes are not written instead', async () => {
    const failing = ['error-zero=EIO', 'error-zero-rate=100%'];
    const { uri } = await peers.nbdkit(['--filter=error', 'memory', '1M', ...failing]);
    await using device = await openDevice(uri, { writable: true });
    await expect(device.zero(0, 512)).rejects.toMatchObject({ errno: 'EIO' });
    await device.write(0, new Uint8Array(512));
  });

  it('end what is in flight when the server dies, and let the device be closed', async () => {
    const peer = await peers.nbdkit(['--filter=delay', 'memory', '1M', 'rdelay=60']);
    const device = await openDevice(peer.uri);
    const read = device.read(0, new Uint8Array(512));
    const failed = expect(read).rejects.toMatchObject({ code: 'ERR_NBD_DISCONNECTED' });
    const closing = device.close();
    await peer.stop('SIGKILL');
    await failed;
    await closing;
  });
});

describe('opening', () => {
  it('is refused where nobody listens', async () => {
    const uri = `nbd+unix:///?socket=${await peers.folder()}/none`;
    await expect(openDevice(uri)).rejects.toMatchObject({ code: 'ERR_NBD_DISCONNECTED' });
  });

  it('keeps to what a server does not allow', async () => {
    const { uri } = await peers.nbdkit(['-r', 'memory', '1M']);
    await using device = await openDevice(uri, { writable: true });
    expect(device.capabilities).toMatchObject({ write: false, zero: false, flush: false });
  });

  it('sees what the description says, in any thread', async () => {
    const { uri } = await peers.nbdkit(['memory', '1M']);
    await using device = await openDevice(uri, { writable: true });
    await device.write(5, Uint8Array.of(1, 2, 3));
    await using again = await openDevice(structuredClone(device.description!), { writable: true });
    const bytes = new Uint8Array(3);
    await again.read(5, bytes);
    expect([...bytes]).toEqual([1, 2, 3]);
  });
});

describe('metadata contexts', () => {
  it('are asked when the device is opened, and stay in its description', async () => {
    const disk = join(await peers.folder(), 'disk.qcow2');
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', disk, '1M']);
    await run('qemu-img', ['bitmap', '--add', disk, 'b0']);
    await run('qemu-io', ['-c', 'write 128k 64k', '-c', 'write -z 512k 64k', disk]);
    const { uri } = await peers.qemuNbd(['-f', 'qcow2', '-B', 'b0', '-r', '-e', '2', disk]);
    const context = 'qemu:dirty-bitmap:b0';
    await using device = await openDevice(uri, { contexts: [context] });
    expect(device.description).toMatchObject({ contexts: [context] });
    const contexts = [context, 'base:allocation'];
    const [dirty, allocation] = await device.extents(0, MIB, { contexts });
    const K = 1024;
    expect([...dirty].filter(({ flags }) => flags === 1)).toEqual([
      { offset: 128 * K, length: 64 * K, flags: 1 },
      { offset: 512 * K, length: 64 * K, flags: 1 },
    ]);
    expect([...allocation].filter(({ flags }) => flags === Status.data)).toEqual([
      { offset: 128 * K, length: 64 * K, flags: Status.data },
    ]);
    const unknown = openDevice(uri, { contexts: ['qemu:dirty-bitmap:b1'] });
    await expect(unknown).rejects.toMatchObject({ code: 'ERR_CONTEXT_UNKNOWN' });
  });
});

describe('status that changes inside a block', () => {
  it('is asked on from where the answer ends', async () => {
    const disk = join(await peers.folder(), 'odd.raw');
    writeFileSync(disk, new Uint8Array(100_001).fill(7));
    const odd = ['--filter=truncate', 'file', disk, 'round-up=512'];
    await using device = await openDevice((await peers.nbdkit(odd)).uri);
    const [list] = await device.extents(0, device.size);
    expect([...list]).toEqual([
      { offset: 0, length: 100_001, flags: Status.data },
      { offset: 100_001, length: 351, flags: Status.zero | Status.hole },
    ]);
  });

  it('may change at every byte', async () => {
    const server = await serveHostile(async (connection) => {
      await connection.negotiate({ size: 1024 });
      for (;;) {
        const request = await connection.request();
        connection.send(statusChunk(request, 0, [[1, request.offset % 2 === 0 ? 0 : 2]]));
      }
    });
    await using device = await openDevice({ driver: 'nbd', server });
    const [list] = await device.extents(510, 5);
    expect([...list].map(({ length, flags }) => [length, flags])).toEqual([
      [1, Status.data],
      [1, Status.zero],
      [1, Status.data],
      [1, Status.zero],
      [1, Status.data],
    ]);
  });

  it('is taken for data, and for dirty, where the rest of the block cannot be asked', async () => {
    const context = 'qemu:dirty-bitmap:b0';
    const limits = { ...fakeDevice(2048).limits, minimum: 512 };
    await using device = fakeDevice(2048, {
      limits,
      capabilities: { contexts: ['base:allocation', context] },
      extents: async (offset) => [
        ExtentList.of(offset, 100, Status.zero),
        ExtentList.of(offset, 100, 0),
      ],
    });
    const contexts = ['base:allocation', context];
    const [allocation, dirty] = await device.extents(512, 512, { contexts });
    expect([...allocation]).toEqual([
      { offset: 512, length: 100, flags: Status.zero },
      { offset: 612, length: 412, flags: Status.data },
    ]);
    expect([...dirty]).toEqual([
      { offset: 512, length: 100, flags: 0 },
      { offset: 612, length: 412, flags: DIRTY },
    ]);
  });
});
