/** Backups of disks at rest: which way each is taken, and that every point is what its disks were. */
import { execFileSync } from 'node:child_process';
import fs, {
  chmodSync,
  existsSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { Bitmap } from 'lacuna/bitmap';
import { Repository } from 'lacuna/repository';
import { describe, expect, test, vi } from 'vitest';
import { openBitmaps, openDevice } from '#dist/block/index.js';
import { Replacement } from '#dist/files/index.js';
import { usePeers } from '../../support/peers.js';
import {
  change,
  flipBit,
  hashOf,
  hashOfFile,
  imageOf,
  KiB,
  MiB,
  makeImage,
  pointsOf,
  resize,
} from '../../support/repository.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const folder = temporaryFolder();
const peers = usePeers();
let made = 0;

/** A new repository, with a new disk of 20 MiB beside it. */
function begin(ending = 'qcow2') {
  const name = `${++made}`;
  const disk = join(folder, `${name}.${ending}`);
  if (ending === 'qcow2') makeImage(disk, 20 * MiB);
  else {
    writeFileSync(disk, '');
    truncateSync(disk, 20 * MiB);
  }
  const repository = Repository.open(join(folder, `repository-${name}`), { create: true });
  return { disk, repository };
}

type Options = Omit<Parameters<Repository['backup']>[0], 'machine' | 'disks'>;

async function backUp(repository: Repository, source: string, options: Options = {}) {
  const disks = [{ name: 'vda', source }];
  const report = await repository.backup({ machine: 'web', disks, ...options });
  return { ...report, disk: report.disks[0] };
}

/** Whether a point is so by our restore, and by qemu-img alone. */
async function expectPoint(repository: Repository, number: number, hash: string): Promise<void> {
  const target = join(folder, 'restored.raw');
  const { point } = await repository.restore({ point: number, disks: [{ name: 'vda', target }] });
  expect(hashOfFile(target)).toBe(hash);
  expect(hashOf(imageOf(repository, point, 'vda'), folder)).toBe(hash);
}

describe('of a qcow2 image', () => {
  test('the first takes all data, the next ones what a bitmap in the image says', async () => {
    const { disk, repository } = begin();
    const hashes: string[] = [];
    await change(disk, (device) => device.write(MiB, Buffer.alloc(MiB, 1)));
    const first = await backUp(repository, disk);
    expect(first.disk).toMatchObject({
      mode: 'full',
      reason: 'there is no earlier point',
      movedBytes: MiB,
    });
    hashes.push(hashOf(disk, folder));
    for (let i = 2; i <= 4; i++) {
      await change(disk, (device) => device.write(i * 2 * MiB, Buffer.alloc(64 * KiB, i)));
      const { disk: told, point } = await backUp(repository, disk);
      expect(told).toMatchObject({ mode: 'bitmap', movedBytes: 64 * KiB, parent: i - 1 });
      expect(told.bitmap).toBe(point.disks[0].bitmap);
      hashes.push(hashOf(disk, folder));
    }
    for (const [i, hash] of hashes.entries()) await expectPoint(repository, i + 1, hash);
    expect(await repository.verify()).toMatchObject({ ok: true, unnamed: [] });
  });

  test('what was zeroed or discarded since the last one reads as zero in the increment', async () => {
    const { disk, repository } = begin();
    await change(disk, (device) => device.write(0, Buffer.alloc(4 * MiB, 1)));
    await backUp(repository, disk);
    await change(disk, async (device) => {
      await device.zero(0, MiB);
      await device.write(MiB, Buffer.alloc(MiB));
      await device.discard(2 * MiB, MiB);
    });
    const { disk: told } = await backUp(repository, disk);
    expect(told).toMatchObject({ mode: 'bitmap', zeroedBytes: 3 * MiB });
    await expectPoint(repository, 2, hashOf(disk, folder));
    const target = join(folder, 'zeroed.raw');
    await repository.restore({ point: 2, disks: [{ name: 'vda', target }] });
    expect(
      readFileSync(target)
        .subarray(0, 3 * MiB)
        .equals(Buffer.alloc(3 * MiB)),
    ).toBe(true);
  });

  test('a disk that QEMU made smaller and larger again has lost its end, although its bitmap says nothing of it', async () => {
    const { disk, repository } = begin();
    await change(disk, (device) => device.write(15 * MiB, Buffer.alloc(MiB, 1)));
    await backUp(repository, disk);
    execFileSync('qemu-img', ['resize', '-q', '--shrink', disk, `${10 * MiB}`]);
    execFileSync('qemu-img', ['resize', '-q', disk, `${20 * MiB}`]);
    const { disk: told } = await backUp(repository, disk);
    expect(told).toMatchObject({ mode: 'bitmap', zeroedBytes: MiB });
    await expectPoint(repository, 2, hashOf(disk, folder));
  });

  test('the bitmap is renewed behind the commit, in one change, and only those of this repository', async () => {
    const { disk, repository } = begin();
    const other = begin().repository;
    execFileSync('qemu-img', ['bitmap', '--add', disk, 'mine']);
    const { point } = await backUp(repository, disk);
    await backUp(other, disk);
    await change(disk, (device) => device.write(0, Buffer.alloc(KiB, 1)));
    const { point: second, disk: told } = await backUp(repository, disk);
    expect(told.mode).toBe('bitmap');
    expect(point.disks[0].bitmap).not.toBe(second.disks[0].bitmap);
    await using image = await openBitmaps(disk);
    const names = image.bitmaps.list().map(({ name }) => name);
    const ofOther = pointsOf(other, 'web')[0].disks[0].bitmap;
    expect(names.sort()).toEqual(['mine', ofOther, second.disks[0].bitmap].sort());
  });

  test('a bitmap that counts from an older point of the chain only makes the increment larger', async () => {
    const { disk, repository } = begin();
    await backUp(repository, disk);
    await change(disk, (device) => device.write(0, Buffer.alloc(MiB, 1)));
    const second = await backUp(repository, disk, { bitmaps: false });
    expect(second.disk.bitmap).toBeNull();
    await change(disk, (device) => device.write(MiB, Buffer.alloc(MiB, 2)));
    const { disk: third } = await backUp(repository, disk);
    expect(third).toMatchObject({ mode: 'bitmap', parent: 2, movedBytes: 2 * MiB });
    await expectPoint(repository, 3, hashOf(disk, folder));
  });

  test('a disk that was put back to how it was at an older point is an increment over the newest one all the same', async () => {
    const { disk, repository } = begin();
    await change(disk, (device) => device.write(0, Buffer.alloc(MiB, 1)));
    await backUp(repository, disk);
    const older = readFileSync(disk);
    await change(disk, (device) => device.write(0, Buffer.alloc(64 * KiB, 2)));
    await resize(disk, 10 * MiB);
    await backUp(repository, disk);
    writeFileSync(disk, older);
    await change(disk, (device) => device.write(4 * MiB, Buffer.alloc(64 * KiB, 3)));
    const { disk: third } = await backUp(repository, disk);
    expect(third).toMatchObject({ mode: 'bitmap', parent: 2, movedBytes: 128 * KiB });
    await expectPoint(repository, 3, hashOf(disk, folder));
  });

  test.each([
    [
      'disabled',
      (disk: string, name: string) => execFileSync('qemu-img', ['bitmap', '--disable', disk, name]),
      'is disabled',
    ],
    [
      'gone',
      (disk: string, name: string) => execFileSync('qemu-img', ['bitmap', '--remove', disk, name]),
      'has no bitmap',
    ],
  ])('without a bitmap that can be used (%s) digests are compared', async (_, spoil, why) => {
    const { disk, repository } = begin();
    await change(disk, (device) => device.write(0, Buffer.alloc(2 * MiB, 1)));
    const { point } = await backUp(repository, disk);
    spoil(disk, point.disks[0].bitmap);
    await change(disk, async (device) => {
      await device.write(MiB, Buffer.alloc(64 * KiB, 2));
      await device.zero(0, 64 * KiB);
    });
    const { disk: told } = await backUp(repository, disk);
    expect(told).toMatchObject({ mode: 'digests', movedBytes: 64 * KiB, zeroedBytes: 64 * KiB });
    expect(told.reason).toContain(why);
    await expectPoint(repository, 2, hashOf(disk, folder));
  });

  test('an image that may not be written is backed up all the same, with a warning', async () => {
    const { disk, repository } = begin();
    await using _device = await openDevice(disk);
    const { warnings, disk: told } = await backUp(repository, disk);
    expect(told.bitmap).toBeNull();
    expect(warnings.join()).toMatch(
      /no bitmap counts from this point, so the next backup reads more/,
    );
    expect(await repository.verify()).toMatchObject({ ok: true });
  });

  test.each(['deflate', 'zstd'] as const)(
    'compressed (%s) it takes less, and QEMU reads it',
    async (compress) => {
      const { disk, repository } = begin();
      await change(disk, (device) =>
        device.write(0, Buffer.alloc(8 * MiB, 'all work and no play')),
      );
      const { disk: told, point } = await backUp(repository, disk, { compress });
      expect(told.storedBytes).toBeLessThan(MiB);
      expect(point.disks[0].file.compression).toBe(compress);
      await change(disk, (device) => device.write(MiB, Buffer.alloc(MiB, 'play')));
      await backUp(repository, disk, { compress });
      await expectPoint(repository, 2, hashOf(disk, folder));
      await repository.prune({ keep: { last: 1 } });
      expect(pointsOf(repository, 'web')[0].disks[0].file.compression).toBe(compress);
      await expectPoint(repository, 2, hashOf(disk, folder));
      expect(
        statSync(imageOf(repository, pointsOf(repository, 'web')[0], 'vda')).size,
      ).toBeLessThan(MiB);
    },
  );

  test('a chain that is as long as it may be ends with a full one', async () => {
    const { disk, repository } = begin();
    const modes: string[] = [];
    for (let i = 0; i < 4; i++)
      modes.push((await backUp(repository, disk, { longestChain: 2 })).disk.mode);
    expect(modes).toEqual(['full', 'bitmap', 'full', 'bitmap']);
  });
});

test('a raw disk is compared by digests, whatever its size becomes', async () => {
  const { disk, repository } = begin('raw');
  const hashes: string[] = [];
  await change(disk, (device) => device.write(0, Buffer.alloc(3 * MiB, 1)));
  for (const size of [20 * MiB, 2 * MiB + 77, 30 * MiB + 1, 513, 0, 18 * MiB]) {
    await resize(disk, size);
    if (size > 1000) await change(disk, (device) => device.write(size - 999, Buffer.alloc(999, 7)));
    const { disk: told } = await backUp(repository, disk);
    expect(told.mode).toBe(hashes.length === 0 ? 'full' : 'digests');
    hashes.push(hashOf(disk, folder));
  }
  for (const [i, hash] of hashes.entries()) await expectPoint(repository, i + 1, hash);
  await repository.prune({ keep: { last: 2 } });
  for (const number of [5, 6]) await expectPoint(repository, number, hashes[number - 1]);
  expect(await repository.verify()).toMatchObject({ ok: true });
});

test.each([undefined, 'deflate'] as const)(
  'a disk that ends inside a sector holds nothing behind its end that a larger one held there (%s)',
  async (compress) => {
    const { disk, repository } = begin('raw');
    writeFileSync(disk, Buffer.alloc(MiB, 7));
    await backUp(repository, disk, { ...(compress && { compress }) });
    for (const size of [300 * KiB + 77, 200 * KiB + 1]) {
      await resize(disk, size);
      const { point } = await backUp(repository, disk, { ...(compress && { compress }) });
      await expectPoint(repository, point.number, hashOf(disk, folder));
    }
    expect((await repository.verify()).problems).toEqual([]);
    await repository.prune({ keep: { last: 1 } });
    await expectPoint(repository, 3, hashOf(disk, folder));
  },
);

test('an NBD export is a source', async () => {
  const { disk, repository } = begin();
  await change(disk, (device) => device.write(MiB, Buffer.alloc(MiB, 1)));
  const { uri } = await peers.qemuNbd(['-r', '-f', 'qcow2', disk]);
  expect((await backUp(repository, uri)).disk).toMatchObject({ mode: 'full', movedBytes: MiB });
  expect((await backUp(repository, uri)).disk).toMatchObject({ mode: 'digests', movedBytes: 0 });
  await expectPoint(repository, 2, hashOf(disk, folder));
});

test('a program may say itself what has changed', async () => {
  const { disk, repository } = begin('raw');
  const asked: unknown[] = [];
  const source = { name: 'vda', source: disk };
  await repository.backup({ machine: 'web', disks: [source], id: '0123456789abcdef' });
  await change(disk, async (device) => {
    await device.write(0, Buffer.alloc(64 * KiB, 1));
    await device.write(MiB, Buffer.alloc(64 * KiB, 1));
  });
  const bitmap = new Bitmap({ size: 20 * MiB, granularity: 4096 });
  bitmap.set(0, 64 * KiB);
  bitmap.set(MiB, 64 * KiB);
  const changes = (parent: unknown) => {
    asked.push(parent);
    return bitmap;
  };
  const { disks } = await repository.backup({ machine: 'web', disks: [{ ...source, changes }] });
  expect(disks[0]).toMatchObject({ mode: 'given', movedBytes: 128 * KiB });
  expect(asked).toEqual([
    { number: 1, id: '0123456789abcdef', generations: ['0123456789abcdef'], size: 20 * MiB },
  ]);
  await expectPoint(repository, 2, hashOf(disk, folder));
  bitmap.free();
});

test('several disks are one point, and names that begin alike are not mixed up', async () => {
  const { repository } = begin();
  const [sda, sdaa] = [begin('raw').disk, begin('raw').disk];
  const disks = [
    { name: 'sda', source: sda },
    { name: 'sdaa', source: sdaa },
  ];
  for (let i = 1; i <= 3; i++) {
    await change(sda, (device) => device.write(i * MiB, Buffer.alloc(KiB, i)));
    await change(sdaa, (device) => device.write(i * MiB, Buffer.alloc(KiB, 100 + i)));
    await repository.backup({ machine: 'web', disks });
  }
  await repository.prune({ keep: { last: 1 } });
  const targets = disks.map(({ name }) => ({ name, target: join(folder, `${name}-back.raw`) }));
  await repository.restore({ point: 'latest', disks: targets });
  expect(hashOfFile(targets[0].target)).toBe(hashOf(sda, folder));
  expect(hashOfFile(targets[1].target)).toBe(hashOf(sdaa, folder));
});

test('a prune that fails at one disk leaves nothing of what it merged of another', async () => {
  const { repository } = begin();
  const disks = ['vda', 'vdb'].map((name) => ({ name, source: begin('raw').disk }));
  for (let i = 1; i <= 2; i++) {
    for (const { source } of disks) {
      await change(source, (device) => device.write(i * MiB, Buffer.alloc(64 * KiB, i)));
    }
    await repository.backup({ machine: 'web', disks });
  }
  const image = imageOf(repository, pointsOf(repository, 'web')[0], 'vdb');
  flipBit(image, readFileSync(image).indexOf(Buffer.alloc(KiB, 1)), 0);
  await expect(repository.prune({ keep: { last: 1 } })).rejects.toMatchObject({
    code: 'ERR_REPOSITORY_DAMAGED',
  });
  expect((await repository.verify()).unnamed).toEqual([]);
  expect(pointsOf(repository, 'web')).toHaveLength(2);
});

test('images that were exchanged between two disks are not taken for increments of one another', async () => {
  const { disk, repository } = begin();
  const other = join(folder, 'other.qcow2');
  makeImage(other, 20 * MiB);
  await change(disk, (device) => device.write(0, Buffer.alloc(MiB, 1)));
  const backedUp = (vda: string, vdb: string) =>
    repository.backup({
      machine: 'web',
      disks: [
        { name: 'vda', source: vda },
        { name: 'vdb', source: vdb },
      ],
    });
  await backedUp(disk, other);
  const { disks } = await backedUp(other, disk);
  expect(disks.map(({ mode }) => mode)).toEqual(['digests', 'digests']);
  await expectPoint(repository, 2, hashOf(other, folder));
});

test.each([
  ['a configuration that JSON leaves out', { configuration: () => 1 }, /JSON can hold/],
  ['a configuration that JSON cannot write', { configuration: { size: 1n } }, /BigInt/],
  ['a tag that is too long', { tags: ['t'.repeat(257)] }, /256 characters at most/],
])('%s is refused before anything is read', async (_, options, message) => {
  const { disk, repository } = begin();
  await expect((async () => backUp(repository, disk, options as Options))()).rejects.toThrow(
    message,
  );
  expect(repository.machines()).toEqual([]);
});

test('a backup that fails is no point, and leaves nothing', async () => {
  const { disk, repository } = begin();
  await backUp(repository, disk);
  const bad = begin('raw').disk;
  writeFileSync(bad, Buffer.alloc(MiB, 1));
  const file = { driver: 'file', filename: bad } as const;
  const failing = { driver: 'error' as const, operations: ['read' as const], file };
  const disks = [
    { name: 'vda', source: disk },
    { name: 'vdb', source: failing },
  ];
  await expect(repository.backup({ machine: 'web', disks })).rejects.toMatchObject({
    code: 'ERR_DEVICE_IO',
  });
  expect(pointsOf(repository, 'web')).toHaveLength(1);
  expect((await repository.verify()).unnamed).toEqual([]);
  expect(readdirSync(join(repository.path, 'machines/web/locks'))).toEqual([]);
});

test('a point that exists is not called a failure because a file could not be closed', async () => {
  const { disk, repository } = begin();
  await backUp(repository, disk);
  const close = fs.closeSync;
  const failing = vi.spyOn(fs, 'closeSync');
  const isOfParent = (fd: number) =>
    /1-[0-9a-f]{8}\.leaves$/.test(readlinkSync(`/proc/self/fd/${fd}`));
  const beforeCommit = () => {
    failing.mockImplementation((fd) => {
      const isFailing = isOfParent(fd);
      close(fd);
      if (isFailing) throw new Error('the file server is gone');
    });
  };
  try {
    const { warnings, point } = await backUp(repository, disk, { beforeCommit });
    expect(point.number).toBe(2);
    expect(warnings).toEqual([
      'A source or an older point could not be closed: the file server is gone',
    ]);
  } finally {
    failing.mockRestore();
  }
  expect(pointsOf(repository, 'web')).toHaveLength(2);
});

test('of two backups at once one is a point, even where a lock was taken away', async () => {
  const { disk, repository } = begin('raw');
  writeFileSync(disk, Buffer.alloc(4 * MiB, 1));
  await backUp(repository, disk);
  writeFileSync(disk, Buffer.alloc(4 * MiB, 2));
  const options = { machine: 'web', disks: [{ name: 'vda', source: disk }], full: true };
  // It stands still after its first piece.
  const slow = repository.backup({ ...options, rate: 1 });
  const isCopying = () => slow.progress().step === 'copy' && slow.progress().doneBytes > 0;
  const refused = expect(slow).rejects.toMatchObject({
    code: expect.stringMatching(/^ERR_(REPOSITORY|FILE)_CHANGED$/),
  });
  await expect.poll(isCopying).toBe(true);
  await expect(repository.backup(options)).rejects.toMatchObject({ code: 'ERR_REPOSITORY_LOCKED' });
  rmSync(join(repository.path, 'machines/web/locks'), { recursive: true });
  await repository.backup(options);
  slow.setRate(undefined);
  await refused;
  expect(pointsOf(repository, 'web')).toHaveLength(2);
  await expectPoint(repository, 2, hashOf(disk, folder));
  expect(await repository.verify()).toMatchObject({ ok: true, unnamed: [] });
});

test('a backup removes what an interrupted run left, and nothing that another program put there', async () => {
  const { disk, repository } = begin();
  await backUp(repository, disk);
  const machine = join(repository.path, 'machines/web');
  const left = [
    'disks/vda/2-0123abcd.qcow2',
    'disks/vda/2-0123abcd.leaves',
    'disks/vda/1-0123abcd.qcow2.new',
  ].map((name) => join(machine, name));
  const unfinished = ['disks/vda/2-0123abcd.qcow2', 'points/2.json'].map(
    (name) => Replacement.plan(join(machine, name), 'side').path,
  );
  const others = [
    'disks/vda/notes.txt',
    'disks/vda/copy-of-1.qcow2',
    'disks/vda/2-0123abcd.qcow2.partial-mine',
    'points/2.json.partial-mine',
  ].map((name) => join(machine, name));
  for (const path of [...left, ...unfinished, ...others]) writeFileSync(path, 'x');
  const { removed } = await backUp(repository, disk);
  expect([...removed].sort()).toEqual([...left, ...unfinished].sort());
  expect(others.filter((path) => !existsSync(path))).toEqual([]);
  expect(await repository.verify()).toMatchObject({ ok: true, unnamed: [] });
});

test('the plan says what would be done, and does nothing', async () => {
  const { disk, repository } = begin();
  const options = { machine: 'web', disks: [{ name: 'vda', source: disk }] };
  expect(await repository.plan(options)).toMatchObject([{ mode: 'full', parent: null }]);
  expect(repository.machines()).toEqual([]);
  await backUp(repository, disk);
  await change(disk, (device) => device.write(0, Buffer.alloc(KiB, 1)));
  const before = readFileSync(disk);
  expect(await repository.plan(options)).toMatchObject([
    { mode: 'bitmap', parent: 1, dirtyBytes: 64 * KiB },
  ]);
  expect(readFileSync(disk).equals(before)).toBe(true);
});

test('a backup may be paused, limited and stopped, as every job', async () => {
  const { disk, repository } = begin('raw');
  writeFileSync(disk, Buffer.alloc(8 * MiB, 1));
  const job = repository.backup({
    machine: 'web',
    disks: [{ name: 'vda', source: disk }],
    rate: 1,
  });
  job.on('progress', ({ step, doneBytes }) => {
    if (step === 'copy' && doneBytes > 0) job.stop();
  });
  await expect(job).rejects.toMatchObject({ code: 'ERR_JOB_STOPPED' });
  expect(job.state).toBe('stopped');
  expect(pointsOf(repository, 'web')).toEqual([]);
});

test('leaves add bytes in proportion to what is dirty', async () => {
  const { disk, repository } = begin('raw');
  writeFileSync(disk, Buffer.alloc(19 * MiB, 1));
  const { point } = await backUp(repository, disk);
  await change(disk, (device) => device.write(MiB, Buffer.alloc(KiB, 2)));
  const { point: second } = await backUp(repository, disk);
  expect(point.disks[0].file.leaves.size).toBeGreaterThan(2 * 300 * 32);
  // One block, one part, and the few blocks of the image itself.
  expect(second.disks[0].file.leaves.size).toBeLessThan(500);
});

test('folders that are not empty, and repositories of a newer version, are refused', () => {
  const { repository } = begin();
  expect(() => Repository.open(folder, { create: true })).toThrow(
    /is not a repository, and not empty/,
  );
  expect(() => Repository.open(join(folder, 'nowhere'))).toThrow(
    /is not a repository: there is no lacuna/,
  );
  const file = join(repository.path, 'lacuna-repository.json');
  chmodSync(file, 0o600);
  writeFileSync(file, newerVersion());
  expect(() => Repository.open(repository.path)).toThrow(
    /has version 2, and only version 1 is known here/,
  );
});

function newerVersion(): string {
  const rest = ',"format":"lacuna-repository","version":2}\n';
  const sum = execFileSync('sha256sum', { input: rest }).toString().slice(0, 64);
  return `{"sha256":"${sum}"${rest}`;
}

test('a program may say of which moment the disks are', async () => {
  const { disk, repository } = begin('raw');
  const options = { machine: 'web', disks: [{ name: 'vda', source: disk }] };
  const time = '2026-03-01T12:00:00.000Z';
  expect((await repository.backup({ ...options, time })).point.time).toBe(time);
  for (const other of ['yesterday', '2026-03-01', '2026-03-01T12:00:00Z']) {
    expect(() => repository.backup({ ...options, time: other })).toThrow(
      `backup: time must be ISO 8601 as of Date.toISOString(), not "${other}"`,
    );
  }
});
