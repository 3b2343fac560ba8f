import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe } from 'vitest';
import { openDevice } from '#dist/block/index.js';
import type { DeviceContractOptions } from '#dist/testing/index.js';
import { type Peer, Peers } from '../support/peers.js';
import { ODD_SIZE, SIZE, suite } from './suites.js';

/** A server of its own for each case. */
function served(
  size: number,
  start: (peers: Peers) => Promise<Peer>,
  writable = true,
): DeviceContractOptions {
  const open = async () => {
    const peers = new Peers();
    const { uri } = await start(peers);
    const device = await openDevice(uri, { writable });
    return { device, dispose: () => peers.stopAll() };
  };
  return { size, open, keeps: writable };
}

/** Arguments without a dash are parameters, which come behind the plugin. */
function nbdkit(size: number, ...args: string[]): DeviceContractOptions {
  const options = args.filter((arg) => arg.startsWith('-'));
  const parameters = args.filter((arg) => !arg.startsWith('-'));
  return served(size, (peers) => peers.nbdkit([...options, 'memory', `${size}`, ...parameters]));
}

function qemuNbd(size: number, ...args: string[]): DeviceContractOptions {
  const start = async (peers: Peers) => {
    const disk = join(await peers.folder(), 'disk.raw');
    writeFileSync(disk, '');
    truncateSync(disk, size);
    return peers.qemuNbd([...args, '--format=raw', disk]);
  };
  return served(size, start, !args.includes('--read-only'));
}

const limits = ['minimum=4096', 'preferred=4096', 'maximum=64K', 'error-policy=error'];
const policy = limits.map((limit) => `blocksize-${limit}`);

describe('nbdkit', () => {
  suite('memory', nbdkit(SIZE));
  suite('odd size', nbdkit(ODD_SIZE));
  suite('enforced block sizes', nbdkit(SIZE, '--filter=blocksize-policy', ...policy));
  suite('no zeroing', nbdkit(SIZE, '--filter=nozero'));
  suite('no forced unit access', nbdkit(SIZE, '--filter=fua'));
  suite('no structured replies', nbdkit(SIZE, '--no-sr'));
});

describe('qemu-nbd', () => {
  suite('raw', qemuNbd(SIZE));
  suite('read-only', qemuNbd(SIZE, '--read-only'));
});
