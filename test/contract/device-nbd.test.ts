import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe } from 'vitest';
import { openDevice } from '#dist/block/index.js';
import type { DeviceContractOptions } from '#dist/testing/index.js';
import { installed, serve } from './nbd-servers.js';
import { ODD_SIZE, SIZE, suite } from './suites.js';

type Command = (socket: string, folder: string) => string[];

function served(size: number, command: Command, writable = true): DeviceContractOptions {
  const open = async () => {
    const server = await serve(command);
    const device = await openDevice(server.uri, { writable });
    return { device, dispose: () => server.stop() };
  };
  return { size, open, keeps: writable };
}

function nbdkit(...args: string[]): Command {
  return (socket) => ['nbdkit', '--exit-with-parent', '-f', '-U', socket, ...args];
}

function qemuNbd(size: number, ...args: string[]): Command {
  return (socket, folder) => {
    const disk = join(folder, 'disk.raw');
    writeFileSync(disk, '');
    truncateSync(disk, size);
    return ['qemu-nbd', '-k', socket, '-t', ...args, disk];
  };
}

const limits = ['minimum=4096', 'preferred=4096', 'maximum=64K', 'error-policy=error'];
const policy = limits.map((limit) => `blocksize-${limit}`);

describe.skipIf(!installed('nbdkit'))('nbdkit', () => {
  suite('memory', served(SIZE, nbdkit('memory', `${SIZE}`)));
  suite('odd size', served(ODD_SIZE, nbdkit('memory', `${ODD_SIZE}`)));
  const strict = nbdkit('--filter=blocksize-policy', 'memory', `${SIZE}`, ...policy);
  suite('enforced block sizes', served(SIZE, strict));
  suite('no zeroing', served(SIZE, nbdkit('--filter=nozero', 'memory', `${SIZE}`)));
  suite('no structured replies', served(SIZE, nbdkit('--no-sr', 'memory', `${SIZE}`)));
  suite('read-only', served(SIZE, nbdkit('-r', 'pattern', `${SIZE}`), false));
});

describe.skipIf(!installed('qemu-nbd'))('qemu-nbd', () => {
  suite('raw', served(SIZE, qemuNbd(SIZE, '-f', 'raw')));
  suite('read-only', served(SIZE, qemuNbd(SIZE, '-f', 'raw', '-r'), false));
});
