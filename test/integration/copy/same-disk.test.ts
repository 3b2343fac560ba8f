/** A target may be a part of the source under another name: nothing is lost before it was read. */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { copy, createQcow2, type DeviceDescription, openDevice } from 'lacuna';
import { beforeEach, describe, expect, it } from 'vitest';
import { contentOf, pattern } from '../../support/fake-device.js';
import { Relay } from '../../support/live-machine.js';
import { usePeers } from '../../support/peers.js';
import { runHere } from '../../support/run-here.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const CLUSTER = 65536;
const SIZE = 64 * CLUSTER;

const top = temporaryFolder();
const peers = usePeers();
let folder: string;
const at = (name: string) => join(folder, name);
beforeEach(() => {
  folder = mkdtempSync(join(top, 't-'));
});

/** An export of `base.raw`, half of which holds data. It does not tell what is zero, and zeroes fast. */
async function serveBase(name = 'base.raw') {
  const bytes = Buffer.alloc(SIZE);
  for (let at = 0; at < SIZE; at += 2 * CLUSTER) bytes.set(pattern(CLUSTER, at / CLUSTER + 1), at);
  writeFileSync(at(name), bytes);
  return await peers.nbdkit(['--filter=noextents', 'file', at(name)]);
}

/** An image over a device; it holds the first cluster, and says that the third one is zero. */
async function overlayOver(backing: DeviceDescription) {
  await createQcow2(at('top.qcow2'), { size: SIZE });
  const file = { driver: 'file', filename: at('top.qcow2') } as const;
  const overlay = { driver: 'qcow2', file, backing } as const;
  await using device = await openDevice(overlay, { writable: true });
  await device.write(0, pattern(CLUSTER, 200));
  await device.zero(2 * CLUSTER, CLUSTER);
  return overlay;
}

async function bytesOf(source: DeviceDescription): Promise<Uint8Array> {
  await using device = await openDevice(source);
  return await contentOf(device);
}

describe('an overlay that is copied in full onto what is below it', () => {
  it('arrives whole, where that is an export, by the same name or by another', async () => {
    for (const other of [false, true]) {
      const base = await serveBase();
      const second = await peers.nbdkit(['file', at('base.raw')]);
      const { server } = other ? second : base;
      const overlay = await overlayOver({ driver: 'nbd', server: base.server });
      const want = await bytesOf(overlay);
      await copy({ source: overlay, target: { driver: 'nbd', server } });
      expect(readFileSync(at('base.raw')).equals(want)).toBe(true);
      expect(Buffer.compare(await bytesOf(overlay), want)).toBe(0);
    }
  });

  it('arrives whole, where the source is an export that does not tell what it is made of', async () => {
    const base = await serveBase();
    const overlay = await overlayOver({ driver: 'nbd', server: base.server });
    const want = await bytesOf(overlay);
    const over = { driver: 'nbd', server: base.server };
    const image = { driver: 'qcow2', file: { driver: 'file', filename: at('top.qcow2') } };
    const source = await peers.qemuNbd([`json:${JSON.stringify({ ...image, backing: over })}`]);
    await copy({ source: source.uri, target: base.uri });
    expect(readFileSync(at('base.raw')).equals(want)).toBe(true);
  });
});

describe('a target that holds the file of an image which the source is made of', () => {
  /** An image over another one, whose file is an export as well. */
  async function chain() {
    const path = at('middle.qcow2');
    await createQcow2(path, { size: SIZE });
    const file = { driver: 'file', filename: path } as const;
    {
      await using device = await openDevice({ driver: 'qcow2', file }, { writable: true });
      await device.write(0, pattern(SIZE, 3));
    }
    const bytes = readFileSync(path);
    const { server } = await peers.nbdkit(['file', path]);
    const remote = { driver: 'nbd', server } as const;
    return { path, bytes, file, remote };
  }

  it.each(['by the same name', 'through a link to the socket', 'by a name that does not tell'])(
    'is refused, %s',
    async (how) => {
      const { path, bytes, file, remote } = await chain();
      const isUnknown = how === 'by a name that does not tell';
      symlinkSync(remote.server.path, at('link.sock'));
      const linked = { driver: 'nbd', server: { type: 'unix', path: at('link.sock') } } as const;
      const below = { driver: 'qcow2', file: isUnknown ? file : remote } as const;
      const overlay = await overlayOver(below);
      const target = how === 'by the same name' || isUnknown ? remote : linked;
      await expect(copy({ source: overlay, target })).rejects.toMatchObject({
        code: 'ERR_COPY_MISMATCH',
        message: expect.stringMatching(
          isUnknown
            ? /holds the same bytes as .*middle.qcow2/
            : /where an image below the source lies/,
        ),
      });
      expect(readFileSync(path).equals(bytes)).toBe(true);
    },
  );

  it('is looked for over the connection that writes, as a server may let in nobody else', async () => {
    const { file } = await chain();
    const overlay = await overlayOver({ driver: 'qcow2', file });
    writeFileSync(at('target.raw'), pattern(SIZE, 9));
    const { server } = await peers.qemuNbd(['-f', 'raw', at('target.raw')]);
    const relay = await Relay.start(server.path);
    const target = { driver: 'nbd', server: { type: 'unix', path: relay.path } } as const;
    await copy({ source: overlay, target });
    relay.stop();
    expect(relay.connections).toBe(1);
    expect(readFileSync(at('target.raw')).equals(await bytesOf(overlay))).toBe(true);
  });

  it('is written where it holds another image, or an older copy of that one', async () => {
    const { file, path } = await chain();
    copyFileSync(path, at('old.raw'));
    const overlay = await overlayOver({ driver: 'qcow2', file });
    execFileSync(
      'qemu-io',
      ['-f', 'raw', '-c', `write -P 9 ${CLUSTER * 4} ${SIZE - CLUSTER * 4}`, at('old.raw')],
      {
        stdio: 'pipe',
      },
    );
    const { uri } = await peers.nbdkit(['file', at('old.raw')]);
    const want = await bytesOf(overlay);
    await copy({ source: overlay, target: uri });
    expect(readFileSync(at('old.raw')).subarray(0, SIZE).equals(want)).toBe(true);
  });
});

it('the command tells a file that is named twice from what it may write', async () => {
  writeFileSync(at('disk.raw'), pattern(SIZE));
  const { code, stderr } = await runHere(['copy', at('disk.raw'), at('disk.raw')]);
  expect([code, stderr]).toEqual([1, expect.stringContaining('is the source itself')]);
  expect(readFileSync(at('disk.raw')).equals(pattern(SIZE))).toBe(true);
});
