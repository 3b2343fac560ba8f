import { NbdClient, type NbdConnectOptions, NbdServer, parseNbdUri } from 'lacuna/nbd';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Device, NullDriver } from '#dist/block/index.js';
import { usePeers } from '../../support/peers.js';

const TIB = 2 ** 40;
const MIB = 2 ** 20;
const ALLOCATION = 'base:allocation';
const DIRTY = 'qemu:dirty-bitmap:b';
const peers = usePeers();

/** Every other GiB is dirty. */
const bitmap = {
  size: 8 * TIB,
  *ranges(from = 0, end = 8 * TIB) {
    const GIB = 2 ** 30;
    for (let at = 0; at < 8 * TIB; at += 2 * GIB) {
      const [start, stop] = [Math.max(at, from), Math.min(at + GIB, end)];
      if (start < stop) yield { offset: start, length: stop - start };
    }
  },
};

async function connect(options: Partial<NbdConnectOptions> = {}): Promise<NbdClient> {
  const device = new Device(new NullDriver({ driver: 'null', size: 8 * TIB }));
  const exports = [{ name: '', device, bitmaps: { b: bitmap } }];
  const server = new NbdServer({ exports });
  const path = `${await peers.folder()}/s`;
  await server.listen({ type: 'unix', path });
  const address = { type: 'unix' as const, path };
  const client = await NbdClient.connect({ server: address, contexts: [DIRTY], ...options });
  onTestFinished(async () => {
    await client.close();
    await server.close();
    await device.close();
  });
  return client;
}

const pairs = (list: Iterable<{ length: number; flags: number }>) =>
  [...list].map(({ length, flags }) => [length, flags]);

describe('with a server that has extended headers', () => {
  test('a request without payload covers terabytes', async () => {
    const client = await connect();
    expect(client).toMatchObject({ extended: true, structured: true, canChooseContexts: true });
    await client.writeZeroes(512, 8 * TIB - 512);
    await client.trim(0, 8 * TIB);
    const [list] = await client.blockStatus(0, 8 * TIB, [ALLOCATION]);
    expect(pairs(list)).toEqual([[8 * TIB, 6]]);
  });

  test('contexts are chosen request by request, or asked all', async () => {
    const client = await connect();
    const [dirty] = await client.blockStatus(TIB, 4 * 2 ** 30, [DIRTY]);
    expect(pairs(dirty)).toEqual([1, 0, 1, 0].map((flag) => [2 ** 30, flag]));
    const both = await client.blockStatus(TIB, 2 ** 31, [ALLOCATION, DIRTY]);
    expect(both.map((list) => list.count)).toEqual([1, 2]);
    const [single] = await client.blockStatus(TIB, TIB, [DIRTY], { one: true });
    expect(pairs(single)).toEqual([[2 ** 30, 1]]);
  });

  test('bytes go both ways, large and small', async () => {
    const client = await connect();
    const lengths = [1, 512, 4096, 65536, MIB];
    const work = lengths.flatMap((length, i) => {
      const target = new Uint8Array(length).fill(9);
      return [
        client.write(i * MIB, new Uint8Array(length).fill(7)),
        client
          .read(7 * TIB + i * MIB, target, { dontFragment: true })
          .then(() => expect(target.every((byte) => byte === 0)).toBe(true)),
      ];
    });
    await Promise.all(work);
    await client.flush();
  });

  test('extended headers are not used where the caller does not want them', async () => {
    const client = await connect({ extendedHeaders: false });
    expect(client).toMatchObject({ extended: false, structured: true });
    const [dirty] = await client.blockStatus(0, 2 ** 31, [DIRTY]);
    expect(dirty.count).toBe(2);
    await client.trim(0, 8 * TIB);
  });

  test('the export is described without being used', async () => {
    const client = await connect();
    const { path } = parseNbdUri(client.name).server as { path: string };
    const info = await NbdClient.info({ type: 'unix', path });
    expect(info).toMatchObject({ size: 8 * TIB, extended: true });
    expect(info.contexts).toEqual(expect.arrayContaining([ALLOCATION, DIRTY]));
  });
});
