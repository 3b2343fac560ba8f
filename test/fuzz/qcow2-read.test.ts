/**
 * Images with changed headers, tables and compressed bytes: each is refused with an error of ours, or read; it is never
 * written, and never makes the reader crash, hang or take memory without bound. A failure names its seed, which
 * LACUNA_SEED repeats; LACUNA_RUNS is how many there are.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { LacunaError } from 'lacuna/errors';
import { beforeAll, expect, test } from 'vitest';
import { Qcow2Driver } from '#dist/block/drivers/qcow2/open/qcow2.js';
import { Device, type DeviceDescription } from '#dist/block/index.js';
import { Context } from '#dist/extent/index.js';
import { bytesDevice } from '../support/bytes-device.js';
import { runsOr } from '../support/long-run.js';
import {
  createImage,
  expectSound,
  makeNoise,
  qemuImg,
  qemuIo,
  randomCommands,
  soundImage,
} from '../support/qemu-images.js';
import { temporaryFolder } from '../support/temporary-folder.js';
import { Random } from '../unit/bitmap/random.js';

const RUNS = runsOr(3000);
const MIB = 1024 * 1024;
/** What all inputs together may leave behind. */
const MOST_BYTES = 256 * MIB;
/** The longest that one may take: some of the largest tables there can be are looked through. */
const MOST_MS = 5000;

const folder = temporaryFolder();
const images: Uint8Array[] = [];

beforeAll(async () => {
  // The same images in every run, or a seed would show nothing again.
  const random = new Random(1);
  const noise = makeNoise(folder, random);
  const kinds = [
    ['cluster_size=512', 'compression_type=zlib'],
    ['cluster_size=4k', 'compression_type=zstd'],
    ['cluster_size=16k', 'extended_l2=on', 'compression_type=zstd'],
    ['cluster_size=64k', 'lazy_refcounts=on'],
    ['cluster_size=1k', 'compat=0.10'],
    ['cluster_size=512', 'preallocation=metadata'],
  ];
  for (const [i, options] of kinds.entries()) {
    const path = join(folder, `${i}.qcow2`);
    const size = 512 * 1024;
    const clusterSize = [512, 4096, 16_384, 65_536, 1024, 512][i];
    const work = { size, clusterSize, count: 15, compressed: true, zeroes: i !== 4, noise };
    const make = async (own: Random) => {
      await createImage(path, size, options);
      await qemuIo(path, randomCommands(own, work));
      await qemuImg(['snapshot', '-c', 'one', path]);
      await qemuIo(path, randomCommands(own, work));
      return path;
    };
    await soundImage(random, make, (made) => expectSound(made, ['one']));
    images.push(new Uint8Array(readFileSync(path)));
  }
});

const NUMBERS = [0n, 1n, 8n, 9n, 21n, 22n, 64n, 511n, 512n, 65_535n, 2n ** 31n, 2n ** 32n - 1n];
const LARGE = [
  2n ** 40n,
  2n ** 53n,
  2n ** 55n,
  2n ** 56n - 512n,
  2n ** 62n,
  2n ** 63n,
  2n ** 64n - 1n,
];

function damage(random: Random, image: Uint8Array): Uint8Array {
  const bytes = image.slice();
  const view = new DataView(bytes.buffer);
  const [l1, snapshots] = [40, 64].map((at) => Number(view.getBigUint64(at)));
  const l2 = Number(view.getBigUint64(l1) & 0xff_ffff_ffff_fe00n);
  for (let i = random.between(1, 4); i > 0; i--) {
    const [start, length] = random.pick([
      [0, 112],
      [112, 400],
      [l1, 128],
      [l2, 512],
      [snapshots, 128],
      [0, bytes.length],
    ]);
    const at = Math.min(start + random.between(0, length - 1), bytes.length - 8);
    switch (random.between(0, 5)) {
      case 0:
        bytes[at] ^= 1 << random.between(0, 7);
        break;
      case 1:
        bytes[at] = random.between(0, 255);
        break;
      case 2:
        view.setUint32(at - (at % 4), Number(BigInt.asUintN(32, random.pick(NUMBERS))));
        break;
      case 3:
        view.setBigUint64(at - (at % 8), random.pick([...NUMBERS, ...LARGE]));
        break;
      case 4:
        // A place of some cluster of the file, with or without the flags of an entry.
        view.setBigUint64(
          at - (at % 8),
          BigInt(random.between(0, bytes.length / 512) * 512) |
            random.pick([0n, 1n, 1n << 62n, 1n << 63n]),
        );
        break;
      default:
        bytes.copyWithin(at, random.between(0, bytes.length - 64), random.between(8, 64));
    }
  }
  return random.between(0, 9) === 0 ? bytes.slice(0, random.between(0, bytes.length)) : bytes;
}

async function readSome(random: Random, bytes: Uint8Array): Promise<void> {
  const file: DeviceDescription = { driver: 'file', filename: '/nowhere/fuzz.qcow2' };
  const snapshot = random.between(0, 3) === 0 ? { snapshot: 'one' } : {};
  const description = { driver: 'qcow2', file, 'read-only': true, ...snapshot } as const;
  const open = async () => bytesDevice(bytes, 'fuzz.qcow2');
  await using device = new Device(await Qcow2Driver.open(description, { open, above: [] }));
  const contexts = [Context.allocation, Context.depth];
  const offsets = [0, random.between(0, Math.max(0, device.size - 1))];
  for (const offset of offsets) {
    const length = Math.min(device.size - offset, MIB);
    await device.read(offset, new Uint8Array(length));
    if (length > 0) await device.someExtents(offset, device.size - offset, { contexts });
  }
}

test('a damaged image is read, or refused with a LacunaError, and nothing worse', async () => {
  const first = Random.seed();
  const before = process.memoryUsage().arrayBuffers;
  const outcomes = { read: 0, refused: 0 };
  for (let seed = first; seed < first + RUNS; seed++) {
    const random = new Random(seed);
    const started = process.cpuUsage();
    try {
      await readSome(random, damage(random, random.pick(images)));
      outcomes.read++;
    } catch (cause) {
      if (!(cause instanceof LacunaError)) {
        throw new Error(`LACUNA_SEED=${seed}: ${(cause as Error).stack}`, { cause });
      }
      expect(cause.code, `LACUNA_SEED=${seed}: ${cause.message}`).toMatch(
        /^ERR_(QCOW2_CORRUPT|QCOW2_UNSUPPORTED|IMAGE_CHAIN|DEVICE_OPEN)$/,
      );
      outcomes.refused++;
    }
    // Of the processor, which others may be using as well.
    const { user } = process.cpuUsage(started);
    expect(user / 1000, `LACUNA_SEED=${seed}`).toBeLessThan(MOST_MS);
  }
  if (RUNS === 1) return;
  // Damage that is always noticed, or never, tests nothing.
  expect(outcomes.read).toBeGreaterThan(RUNS / 20);
  expect(outcomes.refused).toBeGreaterThan(RUNS / 20);
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(MOST_BYTES);
});
