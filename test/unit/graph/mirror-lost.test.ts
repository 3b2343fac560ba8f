import { describe, expect, test } from 'vitest';
import { LacunaError } from '#dist/errors/index.js';
import { MirroredDisk } from '#dist/graph/filters/mirrored-disk.js';
import { ManualDisk, settled } from '../../support/manual-disk.js';

const G = 65_536;
const SIZE = 4 * G;
const filled = (value: number) => new Uint8Array(G).fill(value);

function mirrored() {
  const disk = new ManualDisk(SIZE, 'disk');
  const target = new ManualDisk(SIZE, 'target');
  const copy = new MirroredDisk(
    { disk: disk.device, target: target.device },
    {
      mode: 'write-blocking',
      granularity: G,
      targetIsZero: false,
      detectZeroes: 'off',
      limitMs: 2 ** 30,
    },
  );
  const write = (offset: number, bytes: Uint8Array) =>
    copy.change({
      offset,
      length: G,
      onDisk: () => disk.device.write(offset, bytes),
      onTarget: () => target.device.write(offset, bytes),
    });
  return { disk, target, copy, write };
}

const lost = () => new LacunaError('ERR_NBD_DISCONNECTED', 'gone');

describe('a target that is lost', () => {
  test('has forgotten what it had answered before the disk did', async () => {
    const { disk, target, copy, write } = mirrored();
    const first = write(0, filled(1));
    const second = write(G, filled(2));
    await settled();
    target.held[0].release();
    await settled();
    target.held[0].reject(lost());
    await settled();
    disk.held[1].release();
    await second;
    disk.held[0].release();
    await first;
    expect(copy.dirtyBytes).toBe(2 * G);
  });

  test('has forgotten what a piece has written that ends behind that', async () => {
    const { disk, target, copy, write } = mirrored();
    disk.isFree = true;
    const piece = copy.copy(0, G);
    await settled();
    const other = write(G, filled(2));
    await settled();
    const [ofPiece, ofOther] = target.held;
    ofOther.reject(lost());
    await other;
    ofPiece.release();
    await piece;
    expect(copy.dirtyBytes).toBe(2 * G);
  });

  test('may have forgotten what is being flushed', async () => {
    const { disk, target, copy, write } = mirrored();
    disk.isFree = true;
    const first = write(0, filled(1));
    await settled();
    target.held[0].release();
    await first;
    const flushed = copy.flush();
    const second = write(G, filled(2));
    await settled();
    const isWrite = ({ what }: { what: string }) => what === 'write';
    target.held.find(isWrite)!.reject(lost());
    await second;
    target.held[0].release();
    await flushed;
    expect(copy.dirtyBytes).toBe(2 * G);
  });
});
