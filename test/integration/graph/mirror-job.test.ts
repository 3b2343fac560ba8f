/** The mirror job beside the one of qemu-storage-daemon: the same images, the same results. */
import { createQcow2 } from 'lacuna';
import { Graph, type MirrorJob } from 'lacuna/graph';
import { expect, test } from 'vitest';
import { run, usePeers } from '../../support/peers.js';
import { QmpConnection } from '../../support/qmp.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();
const peers = usePeers();

const SIZE = 4 * 1024 * 1024;
const flags = (commands: readonly string[]) => commands.flatMap((command) => ['-c', command]);
const file = (filename: string) => ({ driver: 'file', filename }) as const;

async function ready(job: MirrorJob): Promise<void> {
  await Promise.race([new Promise<void>((resolve) => job.on('ready', resolve)), job]);
}

/** A chain, and a target that holds something; with `top` that lies over the same base. */
async function makeDisk(folder: string, sync: string): Promise<void> {
  await run('mkdir', [folder]);
  const at = (name: string) => `${folder}/${name}`;
  const create = (name: string) =>
    run('qemu-img', [
      ...['create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw'],
      ...[at(name), String(SIZE)],
    ]);
  await run('qemu-img', ['create', '-q', '-f', 'raw', at('base.raw'), String(SIZE)]);
  await run('qemu-io', ['-f', 'raw', ...flags(['write -P 9 0 3M']), at('base.raw')]);
  await create('top.qcow2');
  const writes = ['write -P 1 64k 300k', 'write -z 1M 128k', 'write -P 3 3584k 100k'];
  await run('qemu-io', [...flags(writes), at('top.qcow2')]);
  if (sync === 'top' || sync === 'none') await create('target.qcow2');
  else {
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', at('target.qcow2'), String(SIZE)]);
    await run('qemu-io', [...flags(['write -P 7 0 4M']), at('target.qcow2')]);
  }
}

type Sync = 'full' | 'top' | 'none';
type Mode = 'background' | 'write-blocking';

async function byQemu(folder: string, sync: Sync, mode: Mode): Promise<void> {
  const node = (name: string, image: string) => [
    '--blockdev',
    `driver=qcow2,node-name=${name},file.driver=file,file.filename=${folder}/${image}`,
  ];
  const args = [...node('disk', 'top.qcow2'), ...node('target', 'target.qcow2')];
  const daemon = await peers.monitoredDaemon(args);
  const monitor = await QmpConnection.open(daemon.server.path);
  await monitor.execute('blockdev-mirror', {
    ...{ 'job-id': 'job', device: 'disk', target: 'target', sync, 'copy-mode': mode },
    'auto-dismiss': false,
  });
  const states = () => monitor.execute('query-jobs');
  await expect.poll(states).toMatchObject([{ status: 'ready' }]);
  await monitor.execute('job-complete', { id: 'job' });
  await expect.poll(states).toMatchObject([{ status: 'concluded' }]);
  await monitor.execute('quit');
  await monitor.close();
  await daemon.stop();
}

async function byUs(folder: string, sync: Sync, copyMode: Mode): Promise<void> {
  await using graph = new Graph();
  const image = { driver: 'qcow2', file: file(`${folder}/top.qcow2`) } as const;
  await graph.add({ 'node-name': 'disk', ...image }, { writable: true });
  const target = { driver: 'qcow2', file: file(`${folder}/target.qcow2`) } as const;
  const job = graph.mirror({ node: 'disk', target, sync, copyMode });
  await job.complete();
}

test.each<[Sync, Mode]>([
  ['full', 'background'],
  ['full', 'write-blocking'],
  ['top', 'background'],
  ['none', 'background'],
])('a mirror of sync %s in the mode %s leaves what that of QEMU leaves', async (sync, mode) => {
  for (const folder of ['ours', 'theirs']) await makeDisk(folder, sync);
  await byQemu('theirs', sync, mode);
  await byUs('ours', sync, mode);
  for (const folder of ['ours', 'theirs']) {
    await run('qemu-img', ['check', '-q', `${folder}/target.qcow2`]);
  }
  for (const image of ['target.qcow2', 'top.qcow2']) {
    await run('qemu-img', ['compare', `ours/${image}`, `theirs/${image}`]);
  }
});

test('a mirror from a bitmap into an overlay over a backup moves what is dirty, a stream makes that whole, and the next increment restores exactly', async () => {
  const graph = new Graph();
  const open = async (name: string, backing?: string) => {
    await createQcow2(`${name}.qcow2`, {
      size: SIZE,
      ...(backing !== undefined && {
        backing: { filename: `${backing}.qcow2`, format: 'qcow2' as const },
      }),
    });
    return { driver: 'qcow2', file: file(`${name}.qcow2`) } as const;
  };
  await graph.add({ 'node-name': 'disk', ...(await open('disk')) }, { writable: true });
  const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
  const write = (at: number, value: number) =>
    guest.write(at * 65_536, new Uint8Array(65_536).fill(value));
  for (let at = 0; at < 20; at++) await write(at, 1);
  const add = { type: 'add', name: 'b', persistent: true } as const;
  await graph.changeBitmaps({ disk: [add] });
  await graph.backup({ disks: [{ node: 'disk', target: await open('full') }] });

  await write(3, 2);
  await guest.zero(5 * 65_536, 65_536);
  const job = graph.mirror({
    ...{ node: 'disk', target: await open('overlay', 'full') },
    ...{ sync: 'bitmap', bitmap: 'b', bitmapMode: 'never' },
  });
  await ready(job);
  await write(40, 3);
  const report = await job.complete();
  expect(report).toMatchObject({ movedBytes: 2 * 65_536, zeroedBytes: 65_536, bitmaps: ['b'] });
  await write(41, 4);
  const node = report.target;
  const streamed = graph.stream({ node });
  await write(42, 5);
  // What was written since the backup is in the overlay already.
  expect(await streamed).toMatchObject({ movedBytes: 18 * 65_536, zeroedBytes: 0 });
  const increment = { disks: [{ node, target: await open('increment', 'full') }], bitmap: 'b' };
  await graph.backup(increment);
  const before = new Uint8Array(SIZE);
  await guest.read(0, before);
  await write(0, 9);
  await graph.close();

  const restored = async (name: string) => {
    await run('qemu-img', ['convert', '-O', 'raw', `${name}.qcow2`, `${name}.raw`]);
    const { readFile } = await import('node:fs/promises');
    return readFile(`${name}.raw`);
  };
  expect(Buffer.compare(await restored('increment'), before)).toBe(0);
  const now = Buffer.from(before).fill(9, 0, 65_536);
  expect(Buffer.compare(await restored('overlay'), now)).toBe(0);
  await run('qemu-img', ['check', '-q', 'overlay.qcow2']);
  const info = JSON.parse(await run('qemu-img', ['info', '--output=json', 'overlay.qcow2']));
  expect(info).not.toHaveProperty('backing-filename');
});
