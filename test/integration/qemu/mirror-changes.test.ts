/** What somebody else changes between two mirrors must never make a replica pass for equal that is not. */
import { rmSync } from 'node:fs';
import { createRawFile } from 'lacuna';
import type { MirrorOptions, MirrorReport } from 'lacuna/qemu';
import { afterEach, describe, expect, test } from 'vitest';
import { DISK_BYTES, type LiveOptions } from '../../support/live-machine.js';
import { MirroredMachine } from '../../support/mirrored-machine.js';
import { usePeers } from '../../support/peers.js';

const peers = usePeers('suite');

let machine: MirroredMachine;

async function start(options: LiveOptions = {}): Promise<void> {
  machine = await MirroredMachine.start(peers, 'raw', options);
}

afterEach(async () => {
  await machine.live.stop();
});

async function mirrorOnce(options: Partial<MirrorOptions> = {}): Promise<MirrorReport> {
  await using connected = await machine.live.connect();
  return await connected.mirror({ ...machine.options, once: true, ...options });
}

/** One mirror that fails in the middle. */
async function failingMirror(options: Partial<MirrorOptions>): Promise<void> {
  machine.live.proxy.reset({
    before: async ({ name }) => {
      if (name === 'block-export-add') throw new Error('it is to fail');
    },
  });
  await expect(mirrorOnce(options)).rejects.toThrow();
  machine.live.proxy.reset();
}

describe('after a mirror that failed', () => {
  test('a replica that was exchanged is refused', async () => {
    await start();
    await machine.guest.write(0, Buffer.alloc(65536, 7));
    await mirrorOnce({ bitmap: 'b0' });
    await failingMirror({});
    rmSync(machine.replica);
    await createRawFile(machine.replica, DISK_BYTES);
    await expect(mirrorOnce()).rejects.toMatchObject({ code: 'ERR_REPLICA_MISMATCH' });
    await mirrorOnce({ full: true });
    await machine.expectReplica(machine.guest.content, 'after the full copy');
  });

  test('a bitmap of the same name of another disk is refused', async () => {
    await start({ disks: 2 });
    await machine.live.other.execute('block-dirty-bitmap-add', { node: 'vdb', name: 'b0' });
    await failingMirror({ bitmap: 'b0' });
    await expect(mirrorOnce({ disk: { node: 'vdb' } })).rejects.toMatchObject({
      code: 'ERR_REPLICA_MISMATCH',
      message: expect.stringContaining('vda'),
    });
    await mirrorOnce();
    await machine.expectReplica(machine.guest.content, 'of the disk that it is of');
  });

  test('a bitmap that somebody has cleared since is refused', async () => {
    await start();
    await machine.guest.write(0, Buffer.alloc(65536, 7));
    await failingMirror({ bitmap: 'b0' });
    await machine.live.other.execute('block-dirty-bitmap-clear', { node: 'vda', name: 'b0' });
    await expect(mirrorOnce()).rejects.toMatchObject({ code: 'ERR_BITMAP_INCONSISTENT' });
  });
});
