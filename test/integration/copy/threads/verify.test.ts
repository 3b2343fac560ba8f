import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Bitmap } from '#dist/bitmap/index.js';
import type { Device, Driver } from '#dist/block/index.js';
import { type CopyOptions, copy } from '#dist/copy/index.js';
import { LacunaError } from '#dist/errors/index.js';
import { fakeDevice, pattern } from '../../../support/fake-device.js';
import fc from '../../../support/fast-check.js';
import { runCli } from '../../../support/run-cli.js';
import { temporaryFolder } from '../../../support/temporary-folder.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const SIZE = 2 * MIB + 300;
const folder = temporaryFolder();
const { capabilities } = fakeDevice(1);
const notZero = { ...capabilities, knownZero: false };

async function makeSource(change: Partial<Driver> = {}): Promise<Device> {
  const source = fakeDevice(SIZE, change);
  await source.write(MIB, pattern(512 * KIB));
  await source.write(SIZE - 100, pattern(100));
  return source;
}

/** A target that keeps other bytes than it was given at some places. */
function forgetful(places: readonly number[], change: Partial<Driver> = {}): Device {
  const memory = fakeDevice(SIZE);
  return fakeDevice(SIZE, {
    capabilities: { ...notZero, contexts: [] },
    read: (offset, target) => memory.read(offset, target),
    zero: (offset, length, options) => memory.zero(offset, length, options),
    write: async (offset, bytes) => {
      const kept = Uint8Array.from(bytes);
      for (const place of places) {
        if (place >= offset && place < offset + kept.length) kept[place - offset] ^= 1;
      }
      await memory.write(offset, kept);
    },
    ...change,
  });
}

function verified(options: Omit<CopyOptions, 'verify'>) {
  return copy({ ...options, verify: true });
}

describe('copy with verify', () => {
  it('reads back what was copied, from devices and from files, by any number of threads', async () => {
    const source = await makeSource();
    const path = join(folder, 'source.raw');
    const report = await verified({ source, target: path });
    expect(report).toMatchObject({ movedBytes: expect.any(Number), warnings: [] });
    expect(report.verifiedBytes).toBe(report.movedBytes);
    const again = await verified({ source: path, target: join(folder, 'copy.raw'), threads: 2 });
    expect(again.verifiedBytes).toBe(again.movedBytes);
    expect((await copy({ source, target: path })).verifiedBytes).toBeUndefined();
  });

  it('finds the first byte that a target has not kept', async () => {
    await fc.assert(
      fc.asyncProperty(
        // A byte that is changed twice is kept.
        fc.uniqueArray(fc.integer({ min: MIB, max: MIB + 512 * KIB - 1 }), {
          minLength: 1,
          maxLength: 5,
        }),
        fc.constantFrom(4 * KIB, 64 * KIB),
        async (places, requestSize) => {
          const source = await makeSource();
          const promise = verified({ source, target: forgetful(places), requestSize });
          await expect(promise).rejects.toMatchObject({
            code: 'ERR_COPY_VERIFY',
            offset: Math.min(...places),
          });
        },
      ),
      { numRuns: 15 },
    );
  });

  it('finds zeroes that were not written, whoever is to blame', async () => {
    const source = await makeSource();
    const lazy = forgetful([], { zero: async () => {} });
    await lazy.write(10_000, pattern(10));
    await expect(verified({ source, target: lazy })).rejects.toMatchObject({ offset: 10_000 });
    const told = fakeDevice(SIZE, { capabilities: notZero });
    await told.write(20_000, pattern(10));
    const promise = verified({ source, target: told, targetIsZero: true });
    await expect(promise).rejects.toMatchObject({ code: 'ERR_COPY_VERIFY', offset: 20_000 });
  });

  it('looks at no more than what was copied', async () => {
    const source = await makeSource();
    const bitmap = new Bitmap({ size: SIZE, granularity: 4 * KIB });
    bitmap.set(MIB, 8 * KIB);
    bitmap.set(0, 4 * KIB);
    const target = fakeDevice(SIZE, { capabilities: notZero });
    await target.write(0, pattern(SIZE, 9));
    const report = await verified({ source, target, bitmap });
    // The zeroes at 0 lie in a page that the target calls data.
    expect(report.verifiedBytes).toBe(12 * KIB);
    const broken = forgetful([MIB + 5000]);
    await expect(verified({ source, target: broken, bitmap })).rejects.toMatchObject({
      offset: MIB + 5000,
    });
    const larger = fakeDevice(SIZE + MIB, { capabilities: notZero });
    await larger.write(SIZE, pattern(MIB));
    await verified({ source, target: larger });
  });

  it('looks away from what was left out', async () => {
    const hole = MIB + 64 * KIB;
    const whole = await makeSource();
    const source = await makeSource({
      read: async (offset, target) => {
        await whole.read(offset, target);
        if (offset > hole || hole >= offset + target.length) return;
        throw new LacunaError('ERR_DEVICE_IO', 'bad sector', { errno: 'EIO' });
      },
    });
    const report = await verified({ source, target: fakeDevice(SIZE), onReadError: 'ignore' });
    expect(report.leftOutBytes).toBeGreaterThan(0);
    expect(report.verifiedBytes).toBe(report.movedBytes);
  });

  it('does not give a file its name when it differs', async () => {
    let reads = 0;
    const source = await makeSource({
      read: async (offset, target) => {
        target.set(pattern(target.length));
        if (offset <= MIB && MIB < offset + target.length && reads++ > 0) target[0] ^= 255;
      },
    });
    const path = join(folder, 'kept.raw');
    writeFileSync(path, 'what was there');
    const promise = verified({ source, target: path });
    await expect(promise).rejects.toMatchObject({
      code: 'ERR_COPY_VERIFY',
      device: expect.stringContaining('kept.raw'),
    });
    expect(readFileSync(path, 'utf8')).toBe('what was there');
    const left = readdirSync(dirname(path)).filter((name) => name.includes('.partial-'));
    expect(left).toHaveLength(1);
  });

  it('forgets a resume file with which nothing could go on', async () => {
    const resume = join(folder, 'copy.resume');
    const source = join(folder, 'source.raw');
    const target = join(folder, 'resumed.raw');
    const report = await verified({ source, target, resume });
    expect(report.verifiedBytes).toBe(report.movedBytes);
    expect(existsSync(resume)).toBe(false);
  });

  it('is a flag of the command', async () => {
    const args = ['copy', '--verify', join(folder, 'source.raw'), join(folder, 'cli.raw')];
    const { code, stdout } = await runCli(args);
    expect([code, stdout]).toEqual([0, expect.stringContaining('Verified')]);
  });
});
