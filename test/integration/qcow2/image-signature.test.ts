/** Disks that are raw by their name, and look like images: what is warned of, and that they stay raw. */
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { compare, copy, digest, openDevice, plan } from 'lacuna';
import { describe, expect, test } from 'vitest';
import { run } from '../../support/peers.js';
import { runHere } from '../../support/run-here.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

const MiB = 2 ** 20;
workInNewFolders();

const create = (format: string, path: string, ...options: string[]) =>
  run('qemu-img', ['create', '-q', '-f', format, ...options, path, '1M']);

/** Formats as QEMU makes them, with what is said of each. */
const FORMATS: [string, string[], RegExp][] = [
  [
    'qcow2',
    [],
    /disk.img begins like a qcow2 image; if it is one, say -f qcow2; .* -f raw says so$/,
  ],
  ['qcow2', ['-o', 'compat=0.10'], /begins like a qcow2 image/],
  ['qcow', [], /begins like a qcow image; .*"qemu-nbd -f qcow \.\.\."/],
  ['qed', [], /begins like a qed image/],
  ['vmdk', [], /begins like a vmdk image; .*"qemu-nbd -f vmdk \.\.\." and name its NBD URI/],
  ['vmdk', ['-o', 'subformat=monolithicFlat'], /begins like a vmdk image/],
  ['vdi', [], /begins like a vdi image/],
  ['vhdx', [], /begins like a vhdx image/],
  ['vpc', [], /begins like a VHD image; .*"qemu-nbd -f vpc/],
  ['vpc', ['-o', 'subformat=fixed'], /ends like a VHD image/],
  ['parallels', [], /begins like a parallels image/],
];

test.each(FORMATS)(
  'a %s image with the name of a raw disk is copied as it is, with a warning (%j)',
  async (format, options, said) => {
    await create(format, 'disk.img', ...options);
    const report = await copy({ source: 'disk.img', target: 'x.raw' });
    expect(report.warnings).toEqual([expect.stringMatching(said)]);
    expect(readFileSync('x.raw').equals(readFileSync('disk.img'))).toBe(true);
    expect(
      (await copy({ source: 'disk.img', sourceFormat: 'raw', target: 'y.raw' })).warnings,
    ).toEqual([]);
  },
);

test('a LUKS disk with the name of a raw disk is copied as it is, with a warning', async () => {
  writeFileSync('disk.img', Buffer.from('LUKS\xba\xbe\0\x02'.padEnd(MiB, '\0'), 'latin1'));
  const { warnings } = await copy({ source: 'disk.img', target: 'x.raw' });
  expect(warnings).toEqual([
    expect.stringMatching(/LUKS image; if it is one, its bytes stay encrypted/),
  ]);
});

test('what looks like no image is not warned of, however small it is', async () => {
  for (const bytes of ['', 'Q', 'QFI\xfb', 'QFI\xfb\0\0\0\x09', 'conectiy'.padEnd(512, 'x')]) {
    writeFileSync('small.raw', Buffer.from(bytes, 'latin1'));
    await using device = await openDevice('small.raw');
    expect(device.warnings).toEqual([]);
  }
});

describe('the warning', () => {
  test('is in the report of every call, once', async () => {
    await create('qcow2', 'disk.img');
    const once = [expect.stringContaining('begins like a qcow2 image')];
    const made = await plan({ source: 'disk.img' });
    expect(made.warnings).toEqual(once);
    made.data.free();
    made.zero.free();
    expect((await digest('disk.img')).warnings).toEqual(once);
    expect((await compare({ a: 'disk.img', b: 'disk.img' })).warnings).toEqual([...once, ...once]);
    const threads = await copy({ source: 'disk.img', target: 'x.raw', threads: 2, verify: true });
    expect(threads.warnings).toEqual(once);
  });

  test('is told by every command, and not where the format is said', async () => {
    await create('qcow2', 'disk.img');
    for (const args of [
      ['copy', 'disk.img', 'x.raw'],
      ['copy', '--backing-folder', '.', 'disk.img', 'x.raw'],
      ['copy', '--dry-run', 'disk.img'],
      ['copy', 'disk.img', '-'],
      ['map', 'disk.img'],
      ['info', 'disk.img'],
      ['digest', 'disk.img'],
      ['compare', '-F', 'raw', 'disk.img', 'disk.img'],
      ['populate', 'disk.img', '-o', 'b.bitmaps'],
    ]) {
      const { code, stderr } = await runHere(args);
      expect([args, code, stderr]).toEqual([
        args,
        0,
        expect.stringMatching(/^lacuna: warning: \S+disk.img begins like .*-f qcow2.*\n$/),
      ]);
    }
    await create('raw', 'x.raw');
    await create('qcow2', 'other.img');
    const { stderr } = await runHere(['compare', 'x.raw', 'other.img']);
    expect(stderr).toMatch(/begins like .* -F qcow2; .* -F raw says so\n$/);
    for (const args of [
      ['info', '-f', 'raw', 'disk.img'],
      ['info', '-f', 'qcow2', 'disk.img'],
      ['info', 'driver=file,filename=disk.img'],
    ]) {
      expect(await runHere(args)).toMatchObject({ code: 0, stderr: '' });
    }
  });

  test('names the flag of the target where a part of a disk is written into one', async () => {
    await create('qcow2', 'target.img');
    truncateSync('target.img', MiB);
    await create('qcow2', 'top.qcow2');
    const { code, stderr } = await runHere(['copy', '--mode', 'top', 'top.qcow2', 'target.img']);
    expect(code).toBe(0);
    expect(stderr).toMatch(
      /target.img begins like a qcow2 image; if it is one, say -O qcow2; .* -O raw/,
    );
  });
});

test('messages name the flag that says the format of the device that they are about', async () => {
  await create('qcow2', 'q.qcow2');
  await create('raw', 'd.raw');
  await run('qemu-img', [
    'create',
    '-q',
    '-f',
    'qcow2',
    '-u',
    '-b',
    'd.raw',
    '-F',
    'qcow2',
    'over.qcow2',
    '1M',
  ]);
  await runHere(['bitmap', 'add', 'q.qcow2', 'b0']);
  const cases: [string, RegExp][] = [
    ['info -f qcow2 d.raw', /d.raw is not a qcow2 image.*\(-f raw\)/],
    ['copy -f qcow2 d.raw x.raw', /d.raw is not a qcow2 image.*\(-f raw\)/],
    ['copy --mode top -O qcow2 q.qcow2 d.raw', /d.raw is not a qcow2 image.*\(-O raw\)/],
    ['copy --json --mode top -O qcow2 q.qcow2 d.raw', /"message":"[^"]*\(-O raw\).*\(-O raw\)/s],
    ['compare -f qcow2 d.raw q.qcow2', /d.raw is not a qcow2 image.*\(-f raw\)/],
    ['compare -F qcow2 q.qcow2 d.raw', /d.raw is not a qcow2 image.*\(-F raw\)/],
    ['bitmap merge q.qcow2 b0 b1 -b d.raw -F qcow2', /d.raw is not a qcow2 image.*\(-F raw\)/],
    ['bitmap merge -b d.raw q.qcow2 b0 b1', /d.raw keeps no bitmaps.*\(-F qcow2\)/],
    [
      'info over.qcow2',
      /backing file "d.raw" of \S+over.qcow2 is not a qcow2 image.*rebase -u -F raw/,
    ],
  ];
  for (const [line, said] of cases) {
    const { code, stdout, stderr } = await runHere(line.split(' '));
    expect([line, code !== 0, stdout + stderr]).toEqual([line, true, expect.stringMatching(said)]);
  }
});
