import {
  linkSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createQcow2, createRawFile, type Device, openDevice } from '#dist/block/index.js';
import { Status } from '#dist/extent/index.js';
import { syncFolder } from '#dist/files/index.js';
import { Random } from '#dist/testing/index.js';
import { makeFifo } from '../../support/fifo.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const MIB = 1024 * 1024;
const folder = temporaryFolder();
let count = 0;

function newPath(): string {
  return join(folder, `disk-${count++}.raw`);
}

/** A new file on a file system that knows holes, opened for writing. */
async function newDisk(size = MIB): Promise<{ device: Device; path: string }> {
  const path = newPath();
  await createRawFile(path, size);
  return { device: await openDevice(path, { writable: true, knownZero: true }), path };
}

function allocated(path: string): number {
  return statSync(path).blocks * 512;
}

describe('opening', () => {
  it('says which file cannot be opened, why, and what to do', async () => {
    const path = join(folder, 'no-such-file');
    await expect(openDevice(path)).rejects.toMatchObject({
      code: 'ERR_DEVICE_OPEN',
      errno: 'ENOENT',
      device: path,
      message: `Cannot open ${path} (ENOENT): there is no such file: check the path`,
      cause: expect.objectContaining({ syscall: 'stat' }),
    });
  });

  it('refuses a folder', async () => {
    const error = { code: 'ERR_DEVICE_OPEN', errno: 'EISDIR' };
    await expect(openDevice(folder)).rejects.toMatchObject(error);
  });

  it('refuses a FIFO without waiting for its other end, and a character device', async () => {
    const fifo = join(folder, 'fifo');
    makeFifo(fifo);
    const reasons = {
      [fifo]: 'it is a stream, not a disk',
      '/dev/zero': 'it is not a disk; null: is one',
      '/dev/full': 'it is neither a regular file nor a block device',
    };
    for (const [path, reason] of Object.entries(reasons)) {
      for (const writable of [false, true]) {
        await expect(openDevice(path, { writable })).rejects.toMatchObject({
          code: 'ERR_DEVICE_OPEN',
          message: expect.stringContaining(reason),
        });
      }
    }
  });

  it('is read-only unless it is asked to write', async () => {
    const path = newPath();
    await createRawFile(path, 512);
    await using device = await openDevice(path);
    expect(device.capabilities.write).toBe(false);
    // The locks of this opening stand for those that are made from its description.
    const description = { driver: 'file', filename: path, 'read-only': true, locking: 'off' };
    const { dev, ino } = statSync(path);
    expect(device.description).toEqual({ ...description, inode: `${dev}:${ino}` });
    await using again = await openDevice(device.description!, { writable: true });
    expect(again.capabilities.write).toBe(false);
  });

  it('by a description opens the same file again, or fails', async () => {
    const path = newPath();
    await createRawFile(path, 512);
    await using device = await openDevice(path);
    renameSync(path, `${path}.old`);
    await createRawFile(path, 512);
    await expect(openDevice(device.description!)).rejects.toMatchObject({
      code: 'ERR_DEVICE_OPEN',
      message: expect.stringContaining(
        `Cannot open ${path}: by now this is the name of another file`,
      ),
      device: path,
    });
    renameSync(`${path}.old`, path);
    await using again = await openDevice(device.description!);
    expect(again.description).toEqual(device.description);
  });

  it('follows symbolic links and describes itself by an absolute path', async () => {
    const { device, path } = await newDisk();
    await device.close();
    symlinkSync(path, `${path}.link`);
    await using linked = await openDevice(`${path}.link`);
    expect(linked.size).toBe(MIB);
    process.chdir(folder);
    await using relative = await openDevice(path.slice(folder.length + 1));
    expect(relative.name).toBe(path);
  });
});

describe('creating', () => {
  it('makes a file that reads as zero and takes no space', async () => {
    const { device, path } = await newDisk(2 ** 40);
    expect(device.size).toBe(2 ** 40);
    expect(device.capabilities.knownZero).toBe(true);
    expect(allocated(path)).toBe(0);
    const [list] = await device.extents(0, device.size);
    expect([...list]).toEqual([{ offset: 0, length: 2 ** 40, flags: Status.hole | Status.zero }]);
    await device.close();
  });

  it('replaces the content of a file that is there', async () => {
    const path = newPath();
    writeFileSync(path, 'something');
    await createRawFile(path, 4);
    expect(readFileSync(path)).toEqual(Buffer.alloc(4));
  });

  it('refuses what is no regular file, and sizes that are none', async () => {
    for (const path of ['/dev/null', folder]) {
      await expect(createRawFile(path, 1)).rejects.toMatchObject({ code: 'ERR_DEVICE_OPEN' });
    }
    await expect(createRawFile(join(folder, 'none', 'x'), 1)).rejects.toMatchObject({
      code: 'ERR_DEVICE_OPEN',
      errno: 'ENOENT',
    });
    for (const size of [-1, 0.5, 2 ** 53]) {
      await expect(createRawFile(newPath(), size)).rejects.toThrow(RangeError);
    }
  });

  it('syncs the folder of a file', async () => {
    await syncFolder(newPath());
    await expect(syncFolder(join(folder, 'none', 'x'))).rejects.toMatchObject({
      code: 'ERR_DEVICE_IO',
      errno: 'ENOENT',
    });
  });
});

describe('a file that changes under the device', () => {
  it('is short when it was cut', async () => {
    const { device, path } = await newDisk();
    truncateSync(path, 1000);
    const read = device.read(512, new Uint8Array(4096));
    await expect(read).rejects.toMatchObject({
      code: 'ERR_DEVICE_SHORT',
      device: path,
      offset: 512,
      length: 4096,
      message: expect.stringContaining('ends at byte 1000'),
    });
    await device.close();
  });

  it('calls what was cut off data, so that nobody takes it for zeroes', async () => {
    const { device, path } = await newDisk();
    const [hole] = await device.extents(0, MIB);
    expect([...hole]).toEqual([{ offset: 0, length: MIB, flags: Status.hole | Status.zero }]);
    truncateSync(path, 100_000);
    const [cut] = await device.extents(0, MIB);
    expect([...cut]).toEqual([
      { offset: 0, length: 100_000, flags: Status.hole | Status.zero },
      { offset: 100_000, length: MIB - 100_000, flags: Status.data },
    ]);
    const [end] = await device.extents(MIB / 2, 10);
    expect([...end]).toEqual([{ offset: MIB / 2, length: 10, flags: Status.data }]);
    await device.close();
  });
});

describe('extents', () => {
  it('are looked for in the range asked, and nowhere else', async () => {
    const { device } = await newDisk(2 ** 40);
    await device.write(2 ** 39, new Uint8Array(4096).fill(1));
    await device.write(2 ** 39 + 8192, new Uint8Array(4096).fill(1));
    const [list] = await device.extents(2 ** 39 + 1000, 8000);
    expect([...list]).toEqual([
      { offset: 2 ** 39 + 1000, length: 3096, flags: Status.data },
      { offset: 2 ** 39 + 4096, length: 4096, flags: Status.hole | Status.zero },
      { offset: 2 ** 39 + 8192, length: 808, flags: Status.data },
    ]);
    await device.close();
  });

  it('come in answers of bounded length, which extents puts together', async () => {
    const { device } = await newDisk(70_000 * 8192);
    const page = new Uint8Array(4096).fill(1);
    for (let i = 0; i < 70_000; i++) await device.write(i * 8192, page);
    const [some] = await device.someExtents(0, device.size);
    expect(some.count).toBeGreaterThanOrEqual(65_536);
    expect(some.count).toBeLessThan(70_000);
    const [all] = await device.extents(0, device.size);
    expect(all.count).toBe(140_000);
    await device.close();
  });
});

describe('zero', () => {
  it('gives the space back, or keeps it when told so', async () => {
    const { device, path } = await newDisk();
    await device.write(0, new Uint8Array(MIB).fill(1));
    await device.zero(0, MIB / 2, { unmap: false });
    await device.flush();
    expect(allocated(path)).toBeGreaterThanOrEqual(MIB);
    await device.zero(0, MIB / 2);
    await device.flush();
    expect(allocated(path)).toBeLessThanOrEqual(MIB / 2 + 4096);
    expect(statSync(path).size).toBe(MIB);
    await device.close();
  });

  it('gives back the space of what is discarded', async () => {
    const { device, path } = await newDisk();
    await device.write(0, new Uint8Array(MIB).fill(1));
    await device.discard(0, MIB);
    await device.flush();
    expect(allocated(path)).toBeLessThanOrEqual(4096);
    await device.close();
  });
});

describe('copyFrom', () => {
  it('copies between files at any offset', async () => {
    const source = await newDisk();
    const target = await newDisk();
    const bytes = new Random(3).bytes(MIB);
    await source.device.write(0, bytes);
    const range = { sourceOffset: 1234, targetOffset: 567, length: 700_001 };
    expect(await target.device.copyFrom(source.device, range)).toBe(true);
    const expected = Buffer.alloc(MIB);
    expected.set(bytes.subarray(1234, 1234 + range.length), 567);
    // Not toEqual, which takes seconds for a mebibyte.
    expect(readFileSync(target.path).equals(expected)).toBe(true);
    await Promise.all([source.device.close(), target.device.close()]);
  });

  it('leaves it to the caller where the source is no file, or the ranges overlap', async () => {
    const { device } = await newDisk();
    await using memory = await openDevice({ driver: 'memory', size: MIB });
    const range = { sourceOffset: 0, targetOffset: 4096, length: 65_536 };
    expect(await device.copyFrom(memory, range)).toBe(false);
    expect(await device.copyFrom(device, range)).toBe(false);
    // A refused range says nothing about the next one.
    expect(await device.copyFrom(device, { ...range, targetOffset: MIB / 2 })).toBe(true);
    await device.close();
  });

  it('tells when the source ends early', async () => {
    const source = await newDisk();
    const target = await newDisk();
    await source.device.write(0, new Uint8Array(MIB).fill(1));
    truncateSync(source.path, 100_000);
    const range = { sourceOffset: 0, targetOffset: 0, length: MIB };
    await expect(target.device.copyFrom(source.device, range)).rejects.toMatchObject({
      code: 'ERR_DEVICE_SHORT',
      device: source.path,
    });
    await Promise.all([source.device.close(), target.device.close()]);
  });
});

describe('a file that the caller has made', () => {
  it('is filled, and no other one that has come in its place, nor what a link leads to', async () => {
    const [path, victim] = [newPath(), newPath()];
    writeFileSync(path, '');
    writeFileSync(victim, 'precious');
    const { dev, ino } = statSync(path, { bigint: true });
    const inode = `${dev}:${ino}`;
    await createRawFile(path, 4096, { inode });
    expect(statSync(path).size).toBe(4096);
    // The first one goes on to exist, so that its number is not given to another.
    renameSync(path, `${path}.aside`);
    for (const put of [() => symlinkSync(victim, path), () => linkSync(victim, path)]) {
      put();
      for (const make of [
        () => createRawFile(path, 1, { inode }),
        () => createQcow2(path, { size: 65536, inode }),
      ]) {
        await expect(make()).rejects.toMatchObject({
          code: expect.stringMatching(/^ERR_(FILE_CHANGED|DEVICE_OPEN)$/),
        });
      }
      expect(readFileSync(victim, 'utf8')).toBe('precious');
      rmSync(path);
    }
    symlinkSync(`${path}.aside`, path);
    await expect(createRawFile(path, 1, { inode })).rejects.toMatchObject({ errno: 'ELOOP' });
  });
});
