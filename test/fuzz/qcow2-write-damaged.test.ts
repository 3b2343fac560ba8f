import assert from 'node:assert/strict';
import { LacunaError } from 'lacuna/errors';
import { Random } from 'lacuna/testing';
import { it } from 'vitest';
import { Qcow2Driver } from '#dist/block/drivers/qcow2/open/qcow2.js';
import { Device } from '#dist/block/index.js';
import { firstSeed, runsOr } from '../support/long-run.js';
import { PowerCutDisk } from '../support/power-cut-disk.js';
import { type ImageKind, makeImage } from '../support/qcow2-images.js';
import { temporaryFolder } from '../support/temporary-folder.js';

/** Damaged images. */
const RUNS = runsOr(600);
const SEED = firstSeed();
/** Nothing that a small disk needs comes near to it. */
const MOST_BYTES = 64 * 1024 * 1024;
const SECTORS = 256;

const KINDS: ImageKind[] = [
  { options: { clusterSize: 512 }, content: 'plain' },
  { options: { clusterSize: 4096 }, content: 'snapshot' },
  { options: { clusterSize: 4096 }, content: 'compressed' },
  { options: { clusterSize: 16_384, extendedL2: true }, content: 'plain' },
];

const folder = temporaryFolder();

/** Changes some bytes of the metadata, which is at the beginning of so small an image. */
function damage(bytes: Uint8Array, random: Random): Buffer {
  const damaged = Buffer.from(bytes);
  const { length } = damaged;
  for (let i = 1 + random.below(4); i > 0; i--) {
    const at = random.below(Math.min(length, random.pick([120, 8192, 40_000, length])) - 8);
    const kind = random.below(4);
    if (kind === 0) damaged[at] ^= 1 << random.below(8);
    else if (kind === 1) damaged[at] = random.below(256);
    else if (kind === 2) damaged.writeBigUInt64BE(BigInt(random.below(length)), at - (at % 8));
    else damaged.fill(random.pick([0, 0xff]), at, at + 8);
  }
  return damaged;
}

async function open(disk: PowerCutDisk): Promise<Device> {
  const file = { driver: 'file' as const, filename: '/nowhere/disk.qcow2' };
  const opening = { above: [], open: async () => new Device(disk.driver()) };
  return new Device(await Qcow2Driver.open({ driver: 'qcow2', file, backing: null }, opening));
}

/** An error that tells what was found; anything else is a fault of ours. */
async function expectKnown(request: Promise<unknown>): Promise<void> {
  try {
    await request;
  } catch (error) {
    if (!(error instanceof LacunaError)) throw error;
  }
}

async function use(device: Device, random: Random): Promise<void> {
  for (let i = 0; i < 12; i++) {
    const offset = random.below(Math.min(device.size, SECTORS * 512));
    const length = Math.min(device.size - offset, 1 + random.below(20_000));
    const kind = random.below(5);
    if (kind < 2) await expectKnown(device.write(offset, new Uint8Array(length).fill(1)));
    else if (kind === 2) await expectKnown(device.zero(offset, length));
    else if (kind === 3) await expectKnown(device.discard(offset, length));
    else await expectKnown(device.flush());
  }
}

it('a damaged image is written, or refused with what was found', async () => {
  const images = [];
  for (const kind of KINDS) images.push((await makeImage(folder, kind, SECTORS)).bytes);
  let opened = 0;
  for (let seed = SEED; seed < SEED + RUNS; seed++) {
    const random = new Random(seed);
    const disk = new PowerCutDisk(damage(random.pick(images), random));
    try {
      const device = await open(disk).catch((error: unknown) => {
        if (error instanceof LacunaError) return undefined;
        throw error;
      });
      if (device === undefined) continue;
      opened++;
      if (device.size <= MOST_BYTES) await use(device, random);
      await expectKnown(device.close());
      assert.ok(disk.content.length < MOST_BYTES, `the file grew to ${disk.content.length}`);
    } catch (cause) {
      throw new Error(`LACUNA_SEED=${seed} finds it`, { cause });
    }
  }
  assert.ok(RUNS === 1 || opened > RUNS / 10, `only ${opened} could be opened at all`);
});
