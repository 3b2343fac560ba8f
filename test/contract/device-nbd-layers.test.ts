/** The contract through what lies between a device and a server: TLS, reconnecting, extended headers. */
import { join } from 'node:path';
import { NbdServer } from 'lacuna/nbd';
import { describe } from 'vitest';
import { Device, MemoryDriver, type NbdDescription, openDevice } from '#dist/block/index.js';
import type { DeviceContractOptions } from '#dist/testing/index.js';
import { makeCertificates, makePskFile } from '../support/certificates.js';
import { Peers } from '../support/peers.js';
import { ODD_SIZE, SIZE, suite } from './suites.js';

type Layers = Partial<NbdDescription>;

/** nbdkit's memory, opened with more keys than its address. */
function nbdkit(
  size: number,
  prepare: (folder: string) => Promise<{ args: string[]; layers: Layers }>,
): DeviceContractOptions {
  const open = async () => {
    const peers = new Peers();
    const { args, layers } = await prepare(await peers.folder());
    const { server } = await peers.nbdkit([...args, 'memory', `${size}`]);
    const description = { driver: 'nbd' as const, server, ...layers };
    const device = await openDevice(description, { writable: true });
    return { device, dispose: () => peers.stopAll() };
  };
  return { size, open };
}

const withPsk = async (folder: string) => {
  const path = await makePskFile(join(folder, 'psk'), 'alice');
  const layers: Layers = { tls: { type: 'psk', username: 'alice', 'psk-file': path } };
  return { args: ['--tls=require', `--tls-psk=${path}`], layers };
};

const withCertificates = async (folder: string) => {
  const path = await makeCertificates(join(folder, 'pki'));
  const layers: Layers = { tls: { type: 'x509', certificates: path } };
  return { args: ['--tls=require', '--tls-verify-peer', `--tls-certificates=${path}`], layers };
};

/** Our own server, which speaks extended headers. */
function lacuna(size: number, layers: Layers = {}): DeviceContractOptions {
  const open = async () => {
    const peers = new Peers();
    const served = new Device(new MemoryDriver({ size }));
    const server = new NbdServer({ exports: [{ name: '', device: served }] });
    const path = join(await peers.folder(), 's');
    await server.listen({ type: 'unix', path });
    const description = { driver: 'nbd' as const, server: { type: 'unix' as const, path } };
    const device = await openDevice({ ...description, ...layers }, { writable: true });
    const dispose = async () => {
      await server.close();
      await served.close();
      await peers.stopAll();
    };
    return { device, dispose };
  };
  return { size, open };
}

describe('an NBD device', () => {
  suite('over TLS with a pre-shared key', nbdkit(ODD_SIZE, withPsk));
  suite('over TLS with certificates on both sides', nbdkit(SIZE, withCertificates));
  suite(
    'whose connection is made again when it is lost',
    nbdkit(ODD_SIZE, async () => ({ args: [], layers: { 'reconnect-delay': 10 } })),
  );
  suite(
    'over TLS, made again when it is lost',
    nbdkit(SIZE, async (folder) => {
      const { args, layers } = await withPsk(folder);
      return { args, layers: { ...layers, 'reconnect-delay': 10 } };
    }),
  );
  suite('with extended headers', lacuna(ODD_SIZE));
  suite('with extended headers, made again', lacuna(SIZE, { 'reconnect-delay': 10 }));
});
