import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openDevice } from '#dist/block/index.js';
import { Status } from '#dist/extent/index.js';
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
