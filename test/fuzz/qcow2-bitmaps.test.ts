import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { BitmapImage, createQcow2, openBitmaps } from 'lacuna';
import { Bitmap } from 'lacuna/bitmap';
import { LacunaError } from 'lacuna/errors';
import { expect, it } from 'vitest';
import { bytesDevice } from '../support/bytes-device.js';
import { runsOr } from '../support/long-run.js';
import { temporaryFolder } from '../support/temporary-folder.js';
import { Random } from '../unit/bitmap/random.js';

const RUNS = runsOr(3000);
const SEED = Random.seed();
const SIZE = 8 * 2 ** 20;
const folder = temporaryFolder();

const REFUSALS = new Set([
  'ERR_QCOW2_CORRUPT',
  'ERR_QCOW2_UNSUPPORTED',
  'ERR_BITMAP_CORRUPT',
  'ERR_BITMAP_INCONSISTENT',
]);

/** An image with bitmaps of every form: all clean, all dirty, in part, in use. */
async function makeImage(clusterSize: number): Promise<Buffer> {
  const path = join(folder, `${clusterSize}.qcow2`);
  await createQcow2(path, { size: SIZE, clusterSize });
  await using image = await openBitmaps(path, { writable: true });
  for (const granularity of [512, 4096, 2 ** 20]) {
    using bits = new Bitmap({ size: SIZE, granularity });
    bits.set(0, SIZE / 2);
    bits.set(SIZE - 100_000, 9);
    image.bitmaps.add({ name: `some${granularity}`, granularity, persistent: true });
    image.bitmaps.merge(`some${granularity}`, [bits]);
  }
  image.bitmaps.add({ name: 'clean', persistent: true, disabled: true });
  await image.store();
  return readFileSync(path);
}

/** Where the header has its extensions, the directory, and the tables: what a mutation should meet. */
function placesIn(bytes: Buffer): [number, number][] {
  const at = bytes.indexOf(Buffer.from('2385287500000018', 'hex'));
  const directory = Number(bytes.readBigUInt64BE(at + 24));
  const places: [number, number][] = [
    [at, 32],
    [directory, Number(bytes.readBigUInt64BE(at + 16))],
  ];
  for (let entry = directory; bytes[entry + 17] !== 0; ) {
    places.push([Number(bytes.readBigUInt64BE(entry)), bytes.readUInt32BE(entry + 8) * 8]);
    entry += Math.ceil((24 + bytes.readUInt16BE(entry + 18)) / 8) * 8;
    if (entry >= directory + places[1][1]) break;
  }
  return places;
}

function mutate(bytes: Buffer, places: readonly [number, number][], random: Random): Buffer {
  const mutated = Buffer.from(bytes);
  for (let i = random.between(1, 4); i > 0; i--) {
    const [start, length] = random.pick(places);
    const at = start + random.between(0, length - 1);
    const kind = random.between(0, 4);
    if (kind === 0) mutated[at] ^= 1 << random.between(0, 7);
    else if (kind === 1) mutated[at] = random.pick([0, 1, 0x7f, 0x80, 0xff]);
    else if (kind === 2) mutated.fill(random.pick([0, 0xff]), at, at + random.between(1, 16));
    else if (kind === 3) mutated.writeUInt32BE(random.between(0, 2 ** 32 - 1), at & ~3);
    else mutated.copy(mutated, at, random.pick(places)[0], random.pick(places)[0] + 8);
  }
  if (random.between(0, 9) > 0) return mutated;
  return mutated.subarray(0, random.between(200, mutated.length));
}

/** Reads all that there is; returns whether anything was refused. */
async function readAll(bytes: Buffer): Promise<boolean> {
  let refused = false;
  const attempt = async (work: () => Promise<void>) => {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof LacunaError) || !REFUSALS.has(error.code)) throw error;
      refused = true;
    }
  };
  await attempt(async () => {
    await using image = await BitmapImage.open(bytesDevice(bytes), {});
    for (const { name } of image.bitmaps.list()) {
      await attempt(async () => {
        using bits = await image.load(name);
        expect(bits.size).toBe(image.bitmaps.size);
        expect(bits.dirtyBytes).toBeLessThanOrEqual(bits.size);
      });
    }
  });
  return refused;
}

it.each([512, 4096, 65536])(
  'whatever the bitmap directory and tables hold is read or refused, clusters of %i',
  async (clusterSize) => {
    const bytes = await makeImage(clusterSize);
    const places = placesIn(bytes);
    expect(places).toHaveLength(6);
    expect(await readAll(bytes)).toBe(false);
    let refused = 0;
    for (let seed = SEED; seed < SEED + RUNS / 3; seed++) {
      try {
        if (await readAll(mutate(bytes, places, new Random(seed)))) refused++;
      } catch (cause) {
        throw new Error(`LACUNA_SEED=${seed}`, { cause });
      }
    }
    if (RUNS === 1) return;
    // Mutations that nobody notices, or that all are noticed at once, would test nothing.
    expect(refused).toBeGreaterThan(RUNS / 30);
    expect(refused).toBeLessThan(RUNS / 3);
  },
);
