/** The commands of a repository, as a user types them. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createRawFile } from 'lacuna';
import { Repository } from 'lacuna/repository';
import { beforeAll, describe, expect, test } from 'vitest';
import { usePeers } from '../../support/peers.js';
import { flipBit, hashOf, hashOfFile, MiB, makeImage } from '../../support/repository.js';
import { runHere } from '../../support/run-here.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const peers = usePeers();
const folder = temporaryFolder();
const disk = join(folder, 'web.qcow2');
const path = join(folder, 'repository');

async function lacuna(...args: readonly string[]) {
  return await runHere(args);
}

function write(...commands: readonly string[]): void {
  execFileSync('qemu-io', [...commands.flatMap((command) => ['-c', command]), disk]);
}

beforeAll(async () => {
  makeImage(disk, 8 * MiB);
  write('write -P 1 0 1M');
  expect(await lacuna('backup', '--plan', disk, path)).toMatchObject({
    code: 0,
    stdout: `web: all of it, because there is no earlier point. Source: ${disk}\n`,
  });
  expect((await lacuna('backup', disk, path)).stdout).toMatch(/^Restore point web\/1 in /m);
  write('write -P 2 2M 64k', 'write -z 0 64k');
  expect((await lacuna('backup', '--plan', disk, path)).stdout).toMatch(
    /^web: what has changed \(128 KiB dirty\), over point 1, by bitmap lacuna-/,
  );
  expect((await lacuna('backup', '--tag', 'kept', disk, path)).code).toBe(0);
});

test('list shows points with their parents, sizes and tags', async () => {
  const { stdout, code } = await lacuna('list', path);
  expect(code).toBe(0);
  expect(stdout).toMatch(/^point +time +over +disks +size +stored +moved +took +verified +tags\n/);
  expect(stdout).toMatch(/^web\/1 .* - +1 +8 MiB /m);
  expect(stdout).toMatch(/^web\/2 .* 1 +1 +8 MiB .* 64 KiB .* kept$/m);
  const document = JSON.parse((await lacuna('list', '--json', path)).stdout);
  expect(document.machines[0].points[1]).toMatchObject({
    number: 2,
    movedBytes: 64 * 1024,
    tags: ['kept'],
  });
});

describe('restore', () => {
  test('makes a file, an image, or a folder of both', async () => {
    const hash = hashOf(disk, folder);
    const [raw, image] = [join(folder, 'out.raw'), join(folder, 'out.qcow2')];
    expect((await lacuna('restore', path, 'latest', raw)).stdout).toMatch(/^Restored web\/2 of /m);
    expect(hashOfFile(raw)).toBe(hash);
    expect((await lacuna('restore', path, 'web/2', image)).code).toBe(0);
    expect(hashOf(image, folder)).toBe(hash);
    const target = join(folder, 'restored');
    mkdirSync(target);
    expect((await lacuna('restore', '-O', 'qcow2', path, '1', target)).code).toBe(0);
    expect(readdirSync(target)).toEqual(['web.qcow2']);
  });

  test('writes to an NBD export, and takes the newest point as old as a time', async () => {
    const [first] = Repository.open(path).points('web')[0].points;
    const raw = join(folder, 'exported.raw');
    await createRawFile(raw, first.disks[0].size);
    const server = await peers.qemuNbd(['-f', 'raw', raw]);
    expect((await lacuna('restore', path, 'latest', server.uri)).code).toBe(0);
    await server.stop();
    expect(hashOfFile(raw)).toBe(hashOf(disk, folder));
    const { stdout } = await lacuna('restore', path, first.time, join(folder, 'of-time.raw'));
    expect(stdout).toMatch(/^Restored web\/1 of /m);
  });

  test.each([
    ['an unknown point', ['9'], 1, /web has no restore point 9: "lacuna list" shows/],
    ['an unknown machine', ['db/1'], 1, /has no machine db; it has: web/],
    ['a time before all points', ['2001-01-01'], 1, /web has no restore point as old as 200/],
    ['what names no point', ['newest'], 2, /a point is a number, "latest", or a time/],
    [
      'an unknown disk',
      ['--disk', 'vdz', '1'],
      1,
      /Point 1 of web has no disk vdz; its disks are: web/,
    ],
  ])('refuses %s', async (_, args, exit, says) => {
    const { code, stderr } = await lacuna(
      'restore',
      ...args.slice(0, -1),
      path,
      args.at(-1)!,
      join(folder, 'never.raw'),
    );
    expect(stderr).toMatch(says);
    expect(code).toBe(exit);
  });
});

describe('a configuration of the machine', () => {
  const file = join(folder, 'web.xml');
  const text = '<domain>\n  <name>wéb</name>\n</domain>\n';

  test('is kept with the restore point, listed, and given back as it was', async () => {
    const kept = join(folder, 'kept');
    writeFileSync(file, text);
    expect((await lacuna('backup', '--configuration', file, disk, kept)).code).toBe(0);
    const { machines } = JSON.parse((await lacuna('list', '--json', kept)).stdout);
    expect(machines[0].points[0].configuration).toBe(text);
    const back = join(folder, 'back.xml');
    const restore = () =>
      lacuna('restore', '--configuration', back, kept, 'latest', join(folder, 'with.raw'));
    expect((await restore()).code).toBe(0);
    expect(readFileSync(back, 'utf8')).toBe(text);
    const again = await restore();
    expect(again.stderr).toMatch(/back.xml is there, and a configuration replaces nothing/);
    expect(again.code).toBe(2);
  });

  test('that a point does not have is not given back', async () => {
    const target = join(folder, 'without.raw');
    const back = join(folder, 'nothing.xml');
    const { code, stderr } = await lacuna('restore', '--configuration', back, path, '1', target);
    expect(stderr).toMatch(/keeps no configuration of the machine/);
    expect({ code, made: [target, back].filter((name) => existsSync(name)) }).toEqual({
      code: 2,
      made: [],
    });
  });

  test.each([
    ['empty', '', 2, /is empty/],
    ['longer than 64 KiB', 'x'.repeat(64 * 1024 + 1), 2, /longer than 64 KiB/],
    ['no UTF-8', Buffer.from([0x3c, 0xff]), 2, /is no text in UTF-8/],
    ['with a byte of 0', 'a\0b', 2, /is no text in UTF-8/],
    ['not there', undefined, 1, /there is no such file/],
  ])('is refused from a file that is %s, and nothing is made', async (_, bytes, exit, says) => {
    const bad = join(folder, 'bad.xml');
    rmSync(bad, { force: true });
    if (bytes !== undefined) writeFileSync(bad, bytes);
    const never = join(folder, 'never');
    const { code, stderr } = await lacuna('backup', '--configuration', bad, disk, never);
    expect(stderr).toMatch(says);
    expect({ code, isMade: existsSync(never) }).toEqual({ code: exit, isMade: false });
  });

  test('is for disks at rest', async () => {
    const args = ['backup', '--configuration', file, '--qmp', 'socket', path];
    expect(await lacuna(...args)).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/--configuration is for disks at rest/),
    });
  });
});

test('diff tells bytes, and with --map every range', async () => {
  expect((await lacuna('diff', path, '1', '2')).stdout).toBe(
    'web/1 to web/2:\nweb: 128 KiB changed in 2 places, of which 64 KiB are zero now.\n',
  );
  expect((await lacuna('diff', '--map', path, '1', 'latest')).stdout).toMatch(
    /^web +0 +65536 +zero\nweb +2097152 +65536 +data\n/m,
  );
});

test('verify exits with 0 while all is sound, and with 1 for damage', async () => {
  expect(await lacuna('verify', path)).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/^2 of 2 restore points are sound/),
  });
  expect((await lacuna('verify', '--data-subset', '5%', path)).code).toBe(0);
  expect((await lacuna('verify', '--data-subset', '0%', path)).code).toBe(2);
  expect((await lacuna('list', path)).stdout).toMatch(/web\/2 .*\d\d:\d\d +kept/);
  const copy = join(folder, 'damaged');
  execFileSync('cp', ['-r', path, copy]);
  flipBit(join(copy, 'machines/web/points/1.json'), 200, 3);
  const { code, stdout } = await lacuna('verify', copy);
  expect(code).toBe(1);
  expect(stdout).toMatch(/the manifest of point 1 of web: its checksum does not fit/);
  expect(stdout).toMatch(/^Damaged, or over a damaged point: web\/2\.$/m);
  const listed = await lacuna('list', copy);
  expect(listed.code).toBe(3);
  expect(listed.stderr).toMatch(/the manifest of point 1 of web/);
});

describe('prune', () => {
  test('refuses to go without a rule', async () => {
    expect(await lacuna('prune', path)).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/--keep-last 7/),
    });
  });

  test('refuses rules that would remove every point, such as a tag that is spelled wrong', async () => {
    const points = readdirSync(join(path, 'machines/web/points'));
    expect(await lacuna('prune', '--keep-tag', 'kebt', path)).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(
        /keep no point of web, which has 2 points, so nothing was pruned/,
      ),
    });
    expect(readdirSync(join(path, 'machines/web/points'))).toEqual(points);
  });

  test('tells with --dry-run what it would do, and then does it', async () => {
    const before = readdirSync(join(path, 'machines/web/disks/web'));
    const dry = await lacuna('prune', '--keep-tag', 'kept', '--dry-run', path);
    expect(dry.stdout).toMatch(/^web\/2 stays: tag kept\nweb: points that would go: 1\n/);
    expect(readdirSync(join(path, 'machines/web/disks/web'))).toEqual(before);
    const done = await lacuna('prune', '--keep-tag', 'kept', path);
    expect(done.stdout).toMatch(/web: points that are gone: 1\n.* free; merged into: 2\n/);
    expect(readdirSync(join(path, 'machines/web/points'))).toEqual(['2.json']);
    expect((await lacuna('verify', path)).code).toBe(0);
  });
});

test('unlock removes the lock of another host', async () => {
  expect((await lacuna('unlock', path)).stdout).toBe('There were no locks.\n');
  const lock = {
    host: 'elsewhere',
    boot: 'b',
    namespace: '',
    pid: 1,
    started: '',
    kind: 'change',
    purpose: 'prune',
    since: 'then',
  };
  writeFileSync(
    join(path, 'machines/web/locks/change-0123456789abcdef.json'),
    JSON.stringify(lock),
  );
  const locked = await lacuna('backup', disk, path);
  expect(locked).toMatchObject({ code: 1 });
  expect(locked.stderr).toMatch(
    /locked by prune of process 1 on elsewhere since then: .*run "lacuna unlock"/,
  );
  expect((await lacuna('unlock', path)).stdout).toMatch(
    /^web: removed the lock of prune, process 1 on elsewhere/,
  );
  expect((await lacuna('backup', disk, path)).code).toBe(0);
});

test.each([
  ['nothing but a repository', ['backup', 'x'], /name the disks to back up, then the repository/],
  [
    'several disks without a machine',
    ['backup', 'a.raw', 'b.raw', 'x'],
    /say what it is called \(--machine NAME\)/,
  ],
  [
    '--compress that takes a disk for its value',
    ['backup', '--compress', 'a.raw', 'x'],
    /--compress is deflate or zstd, not a.raw; write --compress=deflate where a path follows/,
  ],
  ['a disk whose name cannot be one', ['backup', 'my disk.raw', 'x'], /\(--disk NAME\)/],
  ['--disk without a point', ['serve', '--disk', 'vda', 'x'], /are for a restore point/],
])('%s is refused as misuse', async (_, args, says) => {
  const { code, stderr } = await lacuna(...args);
  expect(stderr).toMatch(says);
  expect(code).toBe(2);
});
