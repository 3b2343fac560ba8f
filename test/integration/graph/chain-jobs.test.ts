/** The jobs stream and commit beside those of qemu-storage-daemon: the same images, the same disks and the same allocation. */
import { cp } from 'node:fs/promises';
import { Graph } from 'lacuna/graph';
import { expect, test } from 'vitest';
import { run, usePeers } from '../../support/peers.js';
import { QmpConnection } from '../../support/qmp.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();
const peers = usePeers();

const MIB = 1024 * 1024;
const commands = (...list: string[]) => list.flatMap((command) => ['-c', command]);

/** What of a chain is made: its raw or qcow2 base, a middle that is as long as it is said, a top, and one more above. */
interface Kind {
  readonly base: 'raw' | 'qcow2';
  readonly middleMib: number;
}

async function makeChain(folder: string, { base, middleMib }: Kind): Promise<void> {
  await run('mkdir', [folder]);
  const create = (name: string, size: number, ...options: string[]) =>
    run('qemu-img', ['create', '-q', ...options, `${folder}/${name}`, String(size)]);
  const io = (name: string, format: string, ...list: string[]) =>
    run('qemu-io', ['-f', format, ...commands(...list), `${folder}/${name}`]);
  await create(`base.${base}`, 4 * MIB, '-f', base);
  await io(`base.${base}`, base, 'write -P 9 0 1300k', 'write -P 8 3M 700k');
  const over = (file: string, format: string) => ['-f', 'qcow2', '-b', file, '-F', format];
  await create('middle.qcow2', middleMib * MIB, ...over(`base.${base}`, base));
  await io(
    'middle.qcow2',
    'qcow2',
    'write -P 1 64k 300k',
    'write -z 1M 128k',
    'write -P 2 700k 5k',
  );
  await create('top.qcow2', 4 * MIB, ...over('middle.qcow2', 'qcow2'));
  await io('top.qcow2', 'qcow2', 'write -P 3 200k 1k', 'write -P 4 3584k 100k', 'discard 128k 64k');
  await create('upper.qcow2', 4 * MIB, ...over('top.qcow2', 'qcow2'));
  await io('upper.qcow2', 'qcow2', 'write -P 5 10k 1k', 'write -z 2M 1M');
}

/** Runs a job of QEMU over a chain whose nodes are called as the files. */
async function byQemu(folder: string, { base }: Kind, job: string, options: object): Promise<void> {
  const blockdev = (value: object) => ['--blockdev', JSON.stringify(value)];
  const file = (filename: string) => ({ driver: 'file', filename: `${folder}/${filename}` });
  const layer = (name: string, backing: string) =>
    blockdev({ 'node-name': name, driver: 'qcow2', file: file(`${name}.qcow2`), backing });
  const daemon = await peers.monitoredDaemon([
    ...blockdev({
      'node-name': 'base',
      driver: base,
      file: file(`base.${base}`),
      'read-only': true,
    }),
    ...layer('middle', 'base'),
    ...layer('top', 'middle'),
    ...layer('upper', 'top'),
  ]);
  const monitor = await QmpConnection.open(daemon.server.path);
  await monitor.execute(job, { 'job-id': 'job', 'auto-dismiss': false, ...options });
  const status = async () =>
    ((await monitor.execute('query-jobs')) as { status: string }[])[0]?.status;
  await expect.poll(status).toMatch(/ready|concluded/);
  if ((await status()) === 'ready') await monitor.execute('job-complete', { id: 'job' });
  await expect.poll(status).toBe('concluded');
  expect(await monitor.execute('query-jobs')).not.toMatchObject([{ error: expect.anything() }]);
  await monitor.execute('quit');
  await monitor.close();
  await daemon.stop();
}

async function withGraph(
  folder: string,
  { base }: Kind,
  work: (graph: Graph) => Promise<unknown>,
): Promise<void> {
  const graph = new Graph();
  const file = (name: string) => ({ driver: 'file', filename: `${folder}/${name}` }) as const;
  const image = (name: string) => ({ driver: 'qcow2', file: file(name) }) as const;
  await graph.add(
    base === 'raw'
      ? { 'node-name': 'base', ...file('base.raw') }
      : { 'node-name': 'base', ...image('base.qcow2') },
  );
  await graph.add({ 'node-name': 'middle', ...image('middle.qcow2'), backing: 'base' });
  await graph.add({ 'node-name': 'top', ...image('top.qcow2'), backing: 'middle' });
  const upper = { 'node-name': 'upper', ...image('upper.qcow2'), backing: 'top' } as const;
  await graph.add(upper, { writable: true });
  const guest = await graph.addExport({ name: 'guest', node: 'upper', writable: true });
  await guest.read(0, new Uint8Array(4096));
  await work(graph);
  await graph.close();
}

/** Both show the same disk, which is the one that there was, and name the same images. */
async function expectSame(top: string, images: readonly string[]): Promise<void> {
  await run('qemu-img', ['compare', '-q', `ours/${top}`, `theirs/${top}`]);
  await run('qemu-img', ['compare', '-q', `ours/${top}`, `before/${top}`]);
  for (const image of images) {
    await run('qemu-img', ['check', '-q', `ours/${image}`]);
    const named = async (folder: string) => {
      const info = JSON.parse(
        await run('qemu-img', ['info', '--output=json', `${folder}/${image}`]),
      );
      const backing = info['backing-filename']?.replace(/.*\//, '').replace(/^theirs\//, '');
      return [backing, info['backing-filename-format']];
    };
    expect(await named('ours')).toEqual(await named('theirs'));
  }
}

const KINDS: readonly Kind[] = [
  { base: 'raw', middleMib: 4 },
  { base: 'qcow2', middleMib: 4 },
  { base: 'qcow2', middleMib: 2 },
];
const CASES = KINDS.map((kind) => [kind.base, kind.middleMib, kind] as const);

/** Made once, for the images name each other relative to their folder. */
async function makeAll(kind: Kind): Promise<void> {
  await makeChain('before', kind);
  for (const folder of ['ours', 'theirs']) await cp('before', folder, { recursive: true });
}

test.each(CASES)(
  'a stream of a whole chain over a %s base, with a middle of %i MiB, does what that of QEMU does',
  async (_base, _middle, kind) => {
    await makeAll(kind);
    await byQemu('theirs', kind, 'block-stream', { device: 'upper' });
    await withGraph('ours', kind, (graph) => graph.stream({ node: 'upper' }));
    await expectSame('upper.qcow2', ['upper.qcow2']);
  },
);

test.each(CASES)(
  'a stream down to a %s base, with a middle of %i MiB, does what that of QEMU does',
  async (_base, _middle, kind) => {
    await makeAll(kind);
    // QEMU would name it from its own folder.
    const named = { 'backing-file': `base.${kind.base}` };
    const ends = { device: 'upper', 'base-node': 'base', ...named };
    await byQemu('theirs', kind, 'block-stream', ends);
    await withGraph('ours', kind, (graph) => graph.stream({ node: 'upper', base: 'base' }));
    await expectSame('upper.qcow2', ['upper.qcow2']);
  },
);

test.each(CASES)(
  'a commit of two layers into a %s base, with a middle of %i MiB, does what that of QEMU does',
  async (_base, _middle, kind) => {
    await makeAll(kind);
    const named = { 'backing-file': `base.${kind.base}` };
    const ends = { device: 'upper', 'top-node': 'top', 'base-node': 'base', ...named };
    await byQemu('theirs', kind, 'block-commit', ends);
    await withGraph('ours', kind, (graph) => graph.commit({ node: 'top', base: 'base' }));
    await expectSame('upper.qcow2', ['upper.qcow2']);
    await run('qemu-img', ['compare', '-q', `ours/base.${kind.base}`, `theirs/base.${kind.base}`]);
  },
);

test.each(CASES)(
  'a commit of all layers into a %s base, with a middle of %i MiB, does what that of QEMU does',
  async (_base, _middle, kind) => {
    await makeAll(kind);
    const ends = { device: 'upper', 'base-node': 'base' };
    await byQemu('theirs', kind, 'block-commit', ends);
    await withGraph('ours', kind, async (graph) => {
      const job = graph.commit({ node: 'upper', base: 'base' });
      await expect.poll(() => job.isReady).toBe(true);
      await job.complete();
    });
    const base = `base.${kind.base}`;
    await run('qemu-img', ['compare', '-q', `ours/${base}`, `theirs/${base}`]);
    await run('qemu-img', ['compare', '-q', `ours/${base}`, 'before/upper.qcow2']);
    if (kind.base === 'qcow2') await run('qemu-img', ['check', '-q', `ours/${base}`]);
  },
);

test.each(CASES)(
  'a commit of the one layer above a %s base, with a length of %i MiB, leaves the chain as it was',
  async (_base, _middle, kind) => {
    await makeAll(kind);
    await withGraph('ours', kind, (graph) => graph.commit({ node: 'middle', base: 'base' }));
    await run('qemu-img', ['compare', '-q', 'ours/upper.qcow2', 'before/upper.qcow2']);
    for (const name of ['top', 'upper'])
      await run('qemu-img', ['check', '-q', `ours/${name}.qcow2`]);
  },
);
