/** The backup job beside the one of qemu-storage-daemon: the same images, the same results. */
import { Graph } from 'lacuna/graph';
import { expect, test } from 'vitest';
import { run, usePeers } from '../../support/peers.js';
import { QmpConnection } from '../../support/qmp.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();
const peers = usePeers();

const SIZE = 4 * 1024 * 1024;
const flags = (commands: readonly string[]) => commands.flatMap((command) => ['-c', command]);

/** A chain with a bitmap in its top layer, and a target that holds something. */
async function makeDisk(folder: string): Promise<void> {
  await run('mkdir', [folder]);
  const at = (name: string) => `${folder}/${name}`;
  await run('qemu-img', ['create', '-q', '-f', 'raw', at('base.raw'), String(SIZE)]);
  await run('qemu-io', ['-f', 'raw', ...flags(['write -P 9 0 3M']), at('base.raw')]);
  const backing = ['-b', 'base.raw', '-F', 'raw'];
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', ...backing, at('top.qcow2'), String(SIZE)]);
  await run('qemu-io', [...flags(['write -P 1 64k 300k', 'write -z 1M 128k']), at('top.qcow2')]);
  await run('qemu-img', ['bitmap', '--add', '-g', '64k', at('top.qcow2'), 'b']);
  await run('qemu-io', [
    ...flags([
      'write -P 2 200k 1k',
      'write -z 1280k 64k',
      'write -P 3 3584k 100k',
      'discard 2M 64k',
    ]),
    at('top.qcow2'),
  ]);
  await run('qemu-img', ['create', '-q', '-f', 'raw', at('target.raw'), String(SIZE)]);
  await run('qemu-io', ['-f', 'raw', ...flags(['write -P 7 0 4M']), at('target.raw')]);
}

interface Job {
  readonly sync: 'full' | 'top' | 'incremental' | 'bitmap';
  readonly bitmap?: string;
  readonly bitmapMode?: 'on-success' | 'never';
}

async function byQemu(folder: string, { sync, bitmap, bitmapMode }: Job): Promise<void> {
  const node = (name: string, file: string, driver: string) => [
    '--blockdev',
    `driver=${driver},node-name=${name},file.driver=file,file.filename=${folder}/${file}`,
  ];
  const args = [...node('disk', 'top.qcow2', 'qcow2'), ...node('target', 'target.raw', 'raw')];
  const daemon = await peers.monitoredDaemon(args);
  const monitor = await QmpConnection.open(daemon.server.path);
  const ends = { 'job-id': 'job', device: 'disk', target: 'target', 'auto-dismiss': false };
  await monitor.execute('blockdev-backup', {
    ...ends,
    sync,
    ...(bitmap && { bitmap }),
    ...(sync === 'bitmap' && { 'bitmap-mode': bitmapMode }),
  });
  await expect.poll(() => monitor.execute('query-jobs')).toMatchObject([{ status: 'concluded' }]);
  expect(await monitor.execute('query-jobs')).not.toMatchObject([{ error: expect.anything() }]);
  await monitor.execute('quit');
  await monitor.close();
  await daemon.stop();
}

async function byUs(folder: string, job: Job): Promise<void> {
  const graph = new Graph();
  const file = (name: string) => ({ driver: 'file', filename: `${folder}/${name}` }) as const;
  const image = { driver: 'qcow2', file: file('top.qcow2') } as const;
  await graph.add({ 'node-name': 'disk', ...image }, { writable: true });
  await graph.backup({ disks: [{ node: 'disk', target: file('target.raw') }], ...job });
  await graph.close();
}

test.each<[string, Job]>([
  ['full', { sync: 'full' }],
  ['top', { sync: 'top' }],
  ['incremental', { sync: 'incremental', bitmap: 'b' }],
  ['bitmap, which is kept', { sync: 'bitmap', bitmap: 'b', bitmapMode: 'never' }],
])(
  'a backup of sync %s writes what that of QEMU writes, and leaves the same bitmap',
  async (_, job) => {
    await makeDisk('ours');
    await makeDisk('theirs');
    await byQemu('theirs', job);
    await byUs('ours', job);
    await run('cmp', ['ours/target.raw', 'theirs/target.raw']);
    await run('qemu-img', ['check', '-q', 'ours/top.qcow2']);
    const map = async (folder: string) => {
      const { bitmaps } = JSON.parse(
        await run('qemu-img', ['info', '--output=json', `${folder}/top.qcow2`]),
      )['format-specific'].data;
      return bitmaps;
    };
    expect(await map('ours')).toEqual(await map('theirs'));
    const { openBitmaps } = await import('lacuna');
    const digest = async (folder: string) => {
      await using image = await openBitmaps(`${folder}/top.qcow2`);
      return (await image.bitmaps.load('b')).digest();
    };
    expect(await digest('ours')).toBe(await digest('theirs'));
  },
);
