/** What becomes of bitmaps when the disk of an image is copied, judged by QEMU. */
import {
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { type CopyOptions, copy, openBitmaps, openDevice } from 'lacuna';
import { describe, expect, it } from 'vitest';
import { run, usePeers } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';
import { scribble } from '../../support/scribble.js';
import { bitmapsByQemu, bitmapsByUs, imageDaemon } from '../../support/stored-bitmaps.js';
import { Random } from '../../unit/bitmap/random.js';

const MIB = 2 ** 20;
const SIZE = 24 * MIB + 512;
const peers = usePeers();
let images = 0;

async function newPath(): Promise<string> {
  return join(await peers.folder(), `disk-${images++}.qcow2`);
}

/** An image with bitmaps of several kinds, over a base that has one of its own. */
async function newOverlay(seed = Random.seed()): Promise<{ base: string; top: string }> {
  const random = new Random(seed);
  const [base, top] = [await newPath(), await newPath()];
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', base, `${SIZE}`]);
  await run('qemu-img', ['bitmap', '--add', base, 'of-the-base']);
  scribble(base, SIZE, random);
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', top]);
  await run('qemu-img', ['bitmap', '--add', '-g', '512', top, 'fine']);
  await run('qemu-img', ['bitmap', '--add', '-g', '1M', top, 'coarse']);
  await run('qemu-img', ['bitmap', '--add', '--disable', top, 'off']);
  scribble(top, SIZE, random);
  await run('qemu-img', ['bitmap', '--merge', 'fine', top, 'off']);
  await run('qemu-img', ['bitmap', '--add', top, 'empty']);
  return { base, top };
}

async function expectCopy(target: string, source: string): Promise<void> {
  expect(await run('qemu-img', ['check', '-f', 'qcow2', target])).toContain('No errors');
  const same = ['compare', '-f', 'qcow2', '-F', 'qcow2', target, source];
  expect(await run('qemu-img', same)).toContain('identical');
  const there = await bitmapsByQemu(peers, target);
  expect(there).toEqual(await bitmapsByQemu(peers, source));
  expect(await bitmapsByUs(target)).toEqual(there);
}

/** An image whose bitmap QEMU did not store. */
async function newBroken(): Promise<string> {
  const { top } = await newOverlay();
  await run('qemu-img', ['bitmap', '--remove', top, 'off']);
  const { peer, monitor } = await imageDaemon(peers, top);
  await monitor.close();
  await peer.stop('SIGKILL');
  await run('qemu-img', ['bitmap', '--add', '--disable', top, 'whole']);
  return top;
}

describe('a copy with bitmaps', () => {
  it('is what qemu-img convert makes of the same image', async () => {
    const { top } = await newOverlay();
    const [ours, theirs] = [await newPath(), await newPath()];
    const { code, stdout, stderr } = await runCli(['copy', '--bitmaps', top, ours]);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toContain('Bitmaps: fine, coarse, off, empty');
    await run('qemu-img', ['convert', '--bitmaps', '-O', 'qcow2', top, theirs]);
    await expectCopy(ours, top);
    expect(await bitmapsByQemu(peers, ours)).toEqual(await bitmapsByQemu(peers, theirs));
  });

  it.each<CopyOptions['image'] & { compress?: boolean }>([
    { clusterSize: 512 },
    { clusterSize: 2 * MIB },
    { compress: true, extendedL2: true, clusterSize: 16_384 },
    { dataFile: 'carried.data' },
  ])('keeps flags and granularity in an image with %j', async ({ compress, ...image }) => {
    const { top } = await newOverlay();
    const target = await newPath();
    if (image.dataFile !== undefined) image = { dataFile: `${target}.data` };
    const report = await copy({ source: top, target, image, compress, carryBitmaps: true });
    expect(report.bitmaps).toEqual(['fine', 'coarse', 'off', 'empty']);
    expect(report.warnings).toEqual([]);
    await expectCopy(target, top);
  });

  it('keeps the bitmaps of the top layer where only that is copied, over the same base', async () => {
    const { base, top } = await newOverlay();
    const target = join(dirname(base), `over-${basename(top)}`);
    const image = { backing: { filename: basename(base), format: 'qcow2' } };
    await copy({ source: top, target, mode: 'top', image, carryBitmaps: true, verify: true });
    await expectCopy(target, top);
  });

  it('writes into them what comes later, as if nothing had happened', async () => {
    const { top } = await newOverlay();
    const target = await newPath();
    await copy({ source: top, target, carryBitmaps: true });
    for (const path of [top, target]) {
      await run('qemu-io', ['-f', 'qcow2', '-c', 'write 7M 70k', path]);
    }
    await expectCopy(target, top);
  });

  it('refuses inconsistent bitmaps, or leaves them out and says so', async () => {
    const top = await newBroken();
    const target = await newPath();
    const refused = copy({ source: top, target, carryBitmaps: true });
    await expect(refused).rejects.toMatchObject({
      code: 'ERR_BITMAP_INCONSISTENT',
      message: expect.stringContaining('--skip-broken-bitmaps'),
    });
    expect(existsSync(target)).toBe(false);
    const flags = ['--bitmaps', '--skip-broken-bitmaps', '--json'];
    const { code, stdout } = await runCli(['copy', ...flags, top, target]);
    expect(code).toBe(0);
    const report = JSON.parse(stdout.trim().split('\n').at(-1)!);
    expect(report.bitmaps).toEqual(['whole']);
    expect(report.warnings).toHaveLength(3);
    const there = await bitmapsByQemu(peers, top);
    expect(await bitmapsByQemu(peers, target)).toEqual(
      there.filter(({ name }) => name === 'whole'),
    );
  });

  it('refuses a machine that runs, whose bitmaps are not in the image', async () => {
    const { top } = await newOverlay();
    const { peer, monitor } = await imageDaemon(peers, top);
    const copied = copy({
      source: top,
      target: await newPath(),
      forceShare: true,
      carryBitmaps: true,
    });
    await expect(copied).rejects.toMatchObject({ code: 'ERR_BITMAP_INCONSISTENT' });
    await monitor.close();
    await peer.stop();
  });

  it('is refused for a target that is no qcow2 image, and of a snapshot', async () => {
    const { top } = await newOverlay();
    await run('qemu-img', ['snapshot', '-c', 's', top]);
    const target = await newPath();
    const raw = `${target}.raw`;
    const unsupported = { code: 'ERR_DEVICE_UNSUPPORTED' };
    const carry = { source: top, carryBitmaps: true };
    await expect(copy({ ...carry, target: raw })).rejects.toMatchObject(unsupported);
    await using there = await openDevice({ driver: 'memory', size: SIZE }, { writable: true });
    await expect(copy({ ...carry, target: there })).rejects.toMatchObject(unsupported);
    const file = { driver: 'file', filename: top } as const;
    const source = { driver: 'qcow2', file, snapshot: 's' } as const;
    await expect(copy({ ...carry, source, target })).rejects.toMatchObject({
      ...unsupported,
      message: expect.stringContaining('snapshot "s"'),
    });
    await expect(copy({ ...carry, target, image: { version: 2 } })).rejects.toThrow(/version 3/);
    await expect(copy({ source: top, target, skipBrokenBitmaps: true })).rejects.toThrow(TypeError);
    for (const args of [
      ['--bitmaps', top, '-'],
      ['--bitmaps', '-', target],
    ]) {
      expect(await runCli(['copy', ...args])).toMatchObject({ code: 2 });
    }
    expect([existsSync(raw), existsSync(target)]).toEqual([false, false]);
  });

  it('says that a raw source has none', async () => {
    const target = await newPath();
    writeFileSync(`${target}.raw`, Buffer.alloc(MIB, 1));
    const report = await copy({ source: `${target}.raw`, target, carryBitmaps: true });
    expect(report.bitmaps).toEqual([]);
    expect(report.warnings).toEqual([expect.stringContaining('keeps no bitmaps')]);
  });
});

describe('a copy with bitmaps that dies', () => {
  /** A copy that was stopped half way, with its resume file, and the image that it was making. */
  async function stopped() {
    const { top } = await newOverlay();
    const target = await newPath();
    const resume = `${target}.resume`;
    const options = { source: top, target, resume, carryBitmaps: true };
    // It stands still after its first piece.
    const job = copy({ ...options, rate: 1 });
    const moved = (async () => {
      for await (const { movedBytes } of job) if (movedBytes > 0) job.stop();
    })();
    await expect(moved).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
    const folder = dirname(target);
    const found = readdirSync(folder).find((name) =>
      name.startsWith(`${basename(target)}.partial-`),
    );
    return { top, target, options, partial: join(folder, found!) };
  }

  it('goes on, and has them at the end', async () => {
    const { top, target, options } = await stopped();
    await copy(options);
    await expectCopy(target, top);
  });

  it('goes on where they were in the image already', async () => {
    const { top, target, options, partial } = await stopped();
    const held = { driver: 'qcow2', file: { driver: 'file', filename: partial } } as const;
    {
      await using image = await openBitmaps(held, { writable: true });
      image.bitmaps.add({ name: 'fine', persistent: true });
      image.bitmaps.add({ name: 'other', persistent: true, disabled: true });
      await image.store();
    }
    await copy(options);
    await expectCopy(target, top);
  });

  it('is complete where the image has its name already', async () => {
    const { top, target, options } = await stopped();
    copyFileSync(options.resume, `${options.resume}.kept`);
    await copy(options);
    copyFileSync(`${options.resume}.kept`, options.resume);
    const before = readFileSync(target);
    const report = await copy(options);
    expect(report.movedBytes).toBe(0);
    expect(readFileSync(target).equals(before)).toBe(true);
    expect(existsSync(options.resume)).toBe(false);
    await expectCopy(target, top);
  });

  it('goes on only with the same bitmaps', async () => {
    const { top, target, options } = await stopped();
    const without = copy({ ...options, carryBitmaps: false });
    await expect(without).rejects.toMatchObject({ code: 'ERR_RESUME_MISMATCH' });
    rmSync(options.resume);
    await copy(options);
    await expectCopy(target, top);
  });
});
