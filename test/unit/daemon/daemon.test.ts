import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createQcow2 } from 'lacuna';
import { Daemon } from 'lacuna/daemon';
import { NbdClient } from 'lacuna/nbd';
import { Monitor } from 'lacuna/qmp';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { TestDaemon } from '../../support/daemon.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

const SIZE = 1 << 20;
const GRANULE = 65536;

workInNewFolders();

function rawFile(name: string, size = SIZE): string {
  writeFileSync(name, Buffer.alloc(size));
  return name;
}

/** A daemon with a qcow2 image as the node `disk`. */
async function withDisk(size = SIZE): Promise<TestDaemon> {
  const daemon = new TestDaemon();
  await createQcow2('disk.qcow2', { size });
  await daemon.run('blockdev-add', {
    driver: 'qcow2',
    'node-name': 'disk',
    file: { driver: 'file', filename: 'disk.qcow2' },
  });
  return daemon;
}

/** Serves a node, and connects to it. */
async function served(daemon: TestDaemon, node = 'disk', others = {}): Promise<NbdClient> {
  const path = join(process.cwd(), `${node}.nbd`);
  await daemon.run('nbd-server-start', { addr: { type: 'unix', data: { path } } });
  await daemon.run('block-export-add', {
    ...{ type: 'nbd', id: `${node}-export`, 'node-name': node, writable: true },
    ...others,
  });
  return client(path, node);
}

async function client(path: string, name: string, contexts: string[] = []): Promise<NbdClient> {
  const connected = await NbdClient.connect({
    server: { type: 'unix', path },
    export: name,
    contexts,
  } as never);
  onTestFinished(() => connected.close());
  return connected;
}

async function ranges(daemon: TestDaemon, name: string, node = 'disk'): Promise<number[][]> {
  const answer: { ranges: { offset: number; length: number }[] } = await daemon.run(
    'query-block-dirty-bitmap-ranges',
    { node, name },
  );
  return answer.ranges.map(({ offset, length }) => [offset, length]);
}

describe('a daemon', () => {
  test('opens nodes, serves them, records writes in bitmaps, and stores those at its end', async () => {
    const daemon = await withDisk();
    await daemon.run('block-dirty-bitmap-add', { node: 'disk', name: 'b', persistent: true });
    const guest = await served(daemon);
    await guest.write(GRANULE, Buffer.alloc(512, 7));
    expect(await ranges(daemon, 'b')).toEqual([[GRANULE, GRANULE]]);
    const [node] = (await daemon.run('query-named-block-nodes')) as Record<string, unknown>[];
    expect(node).toMatchObject({
      'node-name': 'disk',
      drv: 'qcow2',
      ro: false,
      'dirty-bitmaps': [{ name: 'b', count: GRANULE, recording: true, persistent: true }],
    });
    expect(await daemon.refusal('blockdev-del', { 'node-name': 'disk' })).toMatch(/is in use/);
    await daemon.daemon.close();
    const again = new TestDaemon();
    await again.run('blockdev-add', {
      driver: 'qcow2',
      'node-name': 'disk',
      file: { driver: 'file', filename: 'disk.qcow2' },
    });
    expect(await ranges(again, 'b')).toEqual([[GRANULE, GRANULE]]);
  });

  test('speaks QMP to a monitor, tells of events, and ends when a client says so', async () => {
    const daemon = await withDisk();
    const path = join(process.cwd(), 'qmp');
    await daemon.daemon.listen({ path });
    const monitor = await Monitor.connect({ path });
    onTestFinished(() => monitor.close());
    const nodes = await monitor.execute('query-named-block-nodes');
    expect(nodes.map((node) => node['node-name'])).toContain('disk');
    const schema = await monitor.schema();
    expect(() =>
      schema.require('it', '10', { 'blockdev-mirror': ['bitmap', 'target-is-zero'] } as never),
    ).not.toThrow();
    const events = monitor.events();
    await monitor.execute('quit');
    const { value } = await events[Symbol.asyncIterator]().next();
    expect(value).toMatchObject({ event: 'SHUTDOWN', data: { reason: 'host-qmp-quit' } });
    await daemon.daemon.ended;
  });

  test('lists every command that it has, and refuses others', async () => {
    const daemon = new TestDaemon();
    const listed: { name: string }[] = await daemon.run('query-commands');
    expect(listed.map(({ name }) => name)).toEqual([...daemon.daemon.commands, 'qmp_capabilities']);
    expect(new Set(daemon.daemon.commands).size).toBe(daemon.daemon.commands.length);
    expect(await daemon.refusal('drive-mirror')).toBe(
      'The command drive-mirror has not been found',
    );
  });

  test('answers its version and schema as they are described', async () => {
    const daemon = new TestDaemon();
    expect(await daemon.run('query-version')).toMatchObject({ qemu: { major: 10 } });
    const schema: { name: string }[] = await daemon.run('query-qmp-schema');
    for (const name of daemon.daemon.commands) {
      expect(schema.map((one) => one.name)).toContain(name);
    }
  });

  test('lets clients name files below allowed folders alone, wherever links lead', async () => {
    mkdirSync('in');
    mkdirSync('out');
    rawFile('in/disk.raw');
    rawFile('out/disk.raw');
    symlinkSync('../out/disk.raw', 'in/link.raw');
    symlinkSync('../out', 'in/folder');
    symlinkSync('../out/new.nbd', 'in/new.nbd');
    const daemon = new TestDaemon({ allow: ['in'] });
    const add = (filename: string) => ({ driver: 'file', 'node-name': 'a', filename }) as const;
    for (const path of [
      'out/disk.raw',
      'in/../out/disk.raw',
      'in/link.raw',
      'in/folder/disk.raw',
      'inside.raw',
    ]) {
      expect(await daemon.refusal('blockdev-add', add(path)), path).toMatch(
        /no folder that clients/,
      );
    }
    await daemon.run('blockdev-add', add('in/disk.raw'));
    const start = (path: string) => ({ addr: { type: 'unix', data: { path } } });
    for (const path of ['out/x.nbd', 'in/new.nbd']) {
      expect(await daemon.refusal('nbd-server-start', start(path)), path).toMatch(/no folder/);
    }
    expect(() => new Daemon({ allow: ['nowhere'] })).toThrow(/ENOENT/);
  });

  test.each([
    [{ blockdev: ['driver=nope,node-name=a'] }, /^--blockdev driver=nope.*accept value 'nope'/],
    [{ blockdev: ['driver=null-co,size=1M'] }, /'node-name' must be specified/],
    [{ blockdev: [{ driver: 'null-co', 'node-name': 'a', size: '1M' }] }, /expected: integer/],
    [{ blockdev: 'driver=null-co' }, /Invalid parameter type for 'blockdev', expected: array/],
    [{ blockdevs: [] }, /'blockdevs' is unexpected/],
    [{ export: ['nbd,id=e,node-name=a'] }, /NBD server not running/],
    [{ 'nbd-server': 'addr.type=unix' }, /'addr.path' is missing/],
    [{ monitor: ['chardev=q'] }, /Chardev 'q' not found/],
    [{ chardev: ['socket,id=q,path=x'] }, /server=on,wait=off/],
    [{ qmp: ['tcp:1234'] }, /unix:PATH/],
  ])('refuses to start with %j', async (args, message) => {
    const { daemon } = new TestDaemon();
    await expect(daemon.apply(args as never)).rejects.toThrow(message);
  });

  test('refuses a name that is taken, and keeps nothing of what it could not open', async () => {
    const daemon = await withDisk();
    expect(await daemon.refusal('blockdev-add', { driver: 'null-co', 'node-name': 'disk' })).toBe(
      "Duplicate nodes with node-name='disk'",
    );
    const broken = {
      driver: 'qcow2',
      'node-name': 'new',
      file: { driver: 'file', filename: rawFile('no.qcow2'), 'node-name': 'new-file' },
    };
    expect(await daemon.refusal('blockdev-add', broken)).toMatch(/qcow2/);
    expect(daemon.daemon.graph.nodes.map(({ name }) => name)).toEqual(['disk.file', 'disk']);
  });
});

describe('the NBD server of a daemon', () => {
  const path = 'late.nbd';
  const address = { addr: { type: 'unix', data: { path } } };
  const EXPORT = { type: 'nbd', id: 'e', 'node-name': 'disk' };

  test('keeps no export that was being added when it was stopped', async () => {
    const daemon = await withDisk();
    await daemon.run('nbd-server-start', address);
    const adding = daemon.refusal('block-export-add', EXPORT);
    await daemon.run('nbd-server-stop');
    expect(await adding).toBe('NBD server not running');
    expect(await daemon.run('query-block-exports')).toEqual([]);
    expect(daemon.daemon.graph.users).toEqual([]);
  });

  test('ends also where an export cannot be closed', async () => {
    const daemon = await withDisk();
    await daemon.run('nbd-server-start', address);
    await daemon.run('block-export-add', EXPORT);
    const [root] = daemon.daemon.graph.users;
    vi.spyOn(root, 'close').mockRejectedValueOnce(new Error('the disk is gone'));
    expect(await daemon.refusal('nbd-server-stop')).toBe('the disk is gone');
    expect(existsSync(path)).toBe(false);
    expect(await daemon.refusal('nbd-server-stop')).toBe('NBD server not running');
  });

  test('does not start any more once the daemon ends', async () => {
    const daemon = await withDisk();
    const starting = daemon.refusal('nbd-server-start', address);
    const closing = daemon.daemon.close();
    expect(await starting).toMatch(/daemon is ending/);
    expect(await daemon.refusal('nbd-server-start', address)).toMatch(/daemon is ending/);
    await closing;
    expect(existsSync(path)).toBe(false);
  });

  test('refuses two bitmaps of one name for an export', async () => {
    const daemon = await withDisk();
    await daemon.run('blockdev-add', { driver: 'null-co', 'node-name': 'n', size: SIZE });
    for (const node of ['disk', 'n'])
      await daemon.run('block-dirty-bitmap-add', { node, name: 'b' });
    await daemon.run('nbd-server-start', address);
    const bitmaps = ['b', { node: 'n', name: 'b' }];
    expect(await daemon.refusal('block-export-add', { ...EXPORT, bitmaps })).toMatch(
      /two bitmaps of the name 'b'/,
    );
    await daemon.run('block-export-add', { ...EXPORT, bitmaps: ['b'] });
  });
});

describe('jobs of a daemon', () => {
  test('copy a node, and tell every state that they come into', async () => {
    const daemon = await withDisk();
    const guest = await served(daemon);
    await guest.write(0, Buffer.alloc(SIZE, 5));
    const target = { driver: 'file', 'node-name': 'copy', filename: rawFile('copy.raw') };
    await daemon.run('blockdev-add', target);
    const job = { 'job-id': 'j', device: 'disk', target: 'copy', sync: 'full' };
    await daemon.run('blockdev-backup', { ...job, 'auto-dismiss': false });
    await daemon.state('j', 'concluded');
    expect(daemon.states('j')).toEqual(['created', 'running', 'waiting', 'pending', 'concluded']);
    expect(await daemon.run('query-jobs')).toEqual([
      {
        ...{ id: 'j', type: 'backup', status: 'concluded' },
        ...{ 'current-progress': SIZE, 'total-progress': SIZE },
      },
    ]);
    expect(await daemon.event('BLOCK_JOB_COMPLETED')).toEqual({
      ...{ device: 'j', len: SIZE, offset: SIZE, speed: 0, type: 'backup' },
    });
    expect(await daemon.refusal('blockdev-backup', job)).toBe("Job ID 'j' already in use");
    await daemon.run('job-dismiss', { id: 'j' });
    expect(await daemon.run('query-jobs')).toEqual([]);
    expect(readFileSync('copy.raw').equals(Buffer.alloc(SIZE, 5))).toBe(true);
  });

  test('mirror only what is dirty, switch their mode, and come into the place of the disk', async () => {
    const daemon = await withDisk();
    const guest = await served(daemon);
    await daemon.run('block-dirty-bitmap-add', { node: 'disk', name: 'b' });
    await guest.write(GRANULE, Buffer.alloc(GRANULE, 5));
    await daemon.run('blockdev-add', {
      ...{ driver: 'file', 'node-name': 'copy', filename: rawFile('copy.raw') },
    });
    const mirror = { device: 'disk', target: 'copy', sync: 'incremental', bitmap: 'b' };
    await daemon.run('blockdev-mirror', { 'job-id': 'm', ...mirror });
    await daemon.state('m', 'ready');
    await daemon.event('BLOCK_JOB_READY');
    const change = { id: 'm', type: 'mirror', 'copy-mode': 'write-blocking' };
    await daemon.run('block-job-change', change);
    await daemon.run('block-job-change', { ...change, 'copy-mode': 'background' });
    expect(await daemon.refusal('block-job-change', { ...change, type: 'commit' })).toBe(
      "Job 'm' is 'mirror' job, not 'commit'",
    );
    await guest.write(0, Buffer.alloc(512, 6));
    await daemon.run('job-complete', { id: 'm' });
    await daemon.state('m', 'null');
    expect(daemon.daemon.graph.edges).toContainEqual({
      ...{ parent: 'disk-export', child: 'root', node: 'copy' },
    });
    await guest.write(SIZE - 512, Buffer.alloc(512, 7));
    const copy = readFileSync('copy.raw');
    expect([copy[0], copy[512], copy[GRANULE], copy[SIZE - 1]]).toEqual([6, 0, 5, 7]);
  });

  test('pause, resume, change their speed, and are cancelled', async () => {
    const daemon = await withDisk(16 * SIZE);
    const guest = await served(daemon);
    for (let at = 0; at < 16; at++) await guest.write(at * SIZE, Buffer.alloc(SIZE, 5));
    await daemon.run('blockdev-add', {
      ...{ driver: 'file', 'node-name': 'copy', filename: rawFile('copy.raw', 16 * SIZE) },
    });
    await daemon.run('blockdev-backup', {
      ...{ 'job-id': 'j', device: 'disk', target: 'copy', sync: 'full', speed: 1 },
    });
    const device = { device: 'j' };
    expect(await daemon.refusal('block-job-resume', device)).toMatch(/not paused/);
    await daemon.run('block-job-pause', device);
    expect(await daemon.refusal('job-pause', { id: 'j' })).toBe('Job is already paused');
    expect(await daemon.run('query-block-jobs')).toMatchObject([
      { ...{ device: 'j', status: 'paused', paused: true, speed: 1, ready: false } },
    ]);
    await daemon.run('block-job-set-speed', { device: 'j', speed: 2 });
    await daemon.run('job-resume', { id: 'j' });
    expect(await daemon.refusal('job-complete', { id: 'j' })).toBe(
      "Job 'j' in state 'running' cannot accept command verb 'complete'",
    );
    await daemon.run('block-job-cancel', device);
    await daemon.state('j', 'null');
    expect(daemon.states('j')).toEqual([
      ...['created', 'running', 'paused', 'running', 'aborting', 'concluded', 'null'],
    ]);
    expect(await daemon.event('BLOCK_JOB_CANCELLED')).toMatchObject({ type: 'backup' });
    expect(await daemon.refusal('block-job-cancel', device)).toMatch(/not found/);
  });

  test('populate bitmaps of other nodes', async () => {
    const daemon = await withDisk();
    const guest = await served(daemon);
    await guest.write(3 * GRANULE, Buffer.alloc(512, 5));
    await daemon.run('block-dirty-bitmap-add', { node: 'disk', name: 'p', disabled: true });
    await daemon.run('block-dirty-bitmap-populate', {
      ...{ 'job-id': 'p', from: 'allocation', sources: [{ node: 'disk' }] },
      targets: [{ node: 'disk', name: 'p' }],
    });
    await daemon.state('p', 'null');
    expect(await ranges(daemon, 'p')).toEqual([[3 * GRANULE, GRANULE]]);
    expect(await daemon.run('query-block-jobs')).toEqual([]);
  });

  test('put a new layer on top, commit it, and stream', async () => {
    const daemon = await withDisk();
    const guest = await served(daemon);
    await guest.write(0, Buffer.alloc(512, 1));
    const layer = async (name: string, over: string) => {
      const backing = { filename: `${over}.qcow2`, format: 'qcow2' };
      await createQcow2(`${name}.qcow2`, { size: SIZE, backing });
      const file = { driver: 'file', filename: `${name}.qcow2` };
      await daemon.run('blockdev-add', { driver: 'qcow2', 'node-name': name, file, backing: null });
      await daemon.run('blockdev-snapshot', { node: over, overlay: name });
    };
    await layer('top', 'disk');
    await guest.write(512, Buffer.alloc(512, 2));
    await layer('upper', 'top');
    await guest.write(1024, Buffer.alloc(512, 3));
    await daemon.run('block-commit', { 'job-id': 'c', device: 'upper', 'top-node': 'top' });
    await daemon.state('c', 'null');
    expect(daemon.daemon.graph.nodes.map(({ name }) => name)).not.toContain('top');
    await daemon.run('block-stream', { 'job-id': 's', device: 'upper' });
    await daemon.state('s', 'null');
    const bytes = Buffer.alloc(1536);
    await guest.read(0, bytes);
    expect([bytes[0], bytes[512], bytes[1024]]).toEqual([1, 2, 3]);
    expect(daemon.events.filter(({ data }) => data.error !== undefined)).toEqual([]);
  });

  test('leave the node of a snapshot as it was where that cannot be', async () => {
    const daemon = await withDisk();
    await createQcow2('other.qcow2', { size: SIZE });
    const file = { driver: 'file', filename: 'other.qcow2' };
    await daemon.run('blockdev-add', { driver: 'qcow2', 'node-name': 'o', file, backing: null });
    const snapshot = { node: 'disk', overlay: 'o' };
    expect(await daemon.refusal('blockdev-snapshot', snapshot)).toMatch(/names no backing file/);
    expect(daemon.daemon.graph.nodes.map(({ name }) => name)).toContain('o');
    await daemon.run('blockdev-del', { 'node-name': 'o' });
  });

  test('take no node for a snapshot that lies over another one already', async () => {
    const daemon = await withDisk();
    await createQcow2('top.qcow2', {
      size: SIZE,
      backing: { filename: 'disk.qcow2', format: 'qcow2' },
    });
    const file = { driver: 'file', filename: 'top.qcow2' };
    await daemon.run('blockdev-add', { driver: 'qcow2', 'node-name': 'top', file, backing: null });
    await daemon.run('blockdev-snapshot', { node: 'disk', overlay: 'top' });
    await daemon.run('blockdev-add', { driver: 'null-co', 'node-name': 'other', size: SIZE });
    expect(await daemon.refusal('blockdev-snapshot', { node: 'other', overlay: 'top' })).toBe(
      'The overlay already has a backing image',
    );
    const below = { parent: 'top', child: 'backing', node: 'disk' };
    expect(daemon.daemon.graph.edges).toContainEqual(below);
  });

  test('take no node for a snapshot whose bitmaps would be lost', async () => {
    const daemon = await withDisk();
    await createQcow2('top.qcow2', {
      size: SIZE,
      backing: { filename: 'disk.qcow2', format: 'qcow2' },
    });
    const file = { driver: 'file', filename: 'top.qcow2' };
    await daemon.run('blockdev-add', { driver: 'qcow2', 'node-name': 'top', file, backing: null });
    await daemon.run('block-dirty-bitmap-add', { node: 'top', name: 'b' });
    const snapshot = { node: 'disk', overlay: 'top' };
    expect(await daemon.refusal('blockdev-snapshot', snapshot)).toMatch(/'b'.*would be lost/);
    expect(daemon.daemon.graph.node('top').bitmaps).toHaveLength(1);
    await daemon.run('block-dirty-bitmap-remove', { node: 'top', name: 'b' });
    await daemon.run('blockdev-snapshot', snapshot);
  });
});

describe('transactions of a daemon', () => {
  test('begin backups and change bitmaps at one moment', async () => {
    const daemon = await withDisk();
    const guest = await served(daemon);
    await guest.write(0, Buffer.alloc(512, 1));
    await daemon.run('blockdev-add', {
      ...{ driver: 'file', 'node-name': 'copy', filename: rawFile('copy.raw') },
    });
    await daemon.run('transaction', {
      actions: [
        { type: 'block-dirty-bitmap-add', data: { node: 'disk', name: 'b' } },
        {
          type: 'blockdev-backup',
          data: { 'job-id': 'j', device: 'disk', target: 'copy', sync: 'full' },
        },
      ],
      properties: { 'completion-mode': 'grouped' },
    });
    await guest.write(GRANULE, Buffer.alloc(512, 2));
    await daemon.state('j', 'null');
    const copy = readFileSync('copy.raw');
    expect([copy[0], copy[GRANULE]]).toEqual([1, 0]);
    expect(await ranges(daemon, 'b')).toEqual([[GRANULE, GRANULE]]);
  });

  test('change nothing where one action fails', async () => {
    const daemon = await withDisk();
    const add = (name: string) => ({
      type: 'block-dirty-bitmap-add',
      data: { node: 'disk', name },
    });
    const actions = [add('a'), { ...add('b'), type: 'block-dirty-bitmap-clear' }];
    expect(await daemon.refusal('transaction', { actions })).toBe("Dirty bitmap 'b' not found");
    const merge = {
      type: 'block-dirty-bitmap-merge',
      data: { node: 'disk', target: 'a', bitmaps: ['zz'] },
    };
    expect(await daemon.refusal('transaction', { actions: [add('a'), merge] })).toBe(
      "Dirty bitmap 'zz' not found",
    );
    const abort = { type: 'abort', data: {} };
    expect(await daemon.refusal('transaction', { actions: [add('a'), abort] })).toMatch(/Abort/);
    expect(daemon.daemon.graph.node('disk').bitmaps).toEqual([]);
    const backup = {
      type: 'blockdev-backup',
      data: { 'job-id': 'j', device: 'disk', target: 'disk', sync: 'full' },
    };
    await daemon.refusal('transaction', { actions: [add('a'), backup] });
    expect(await daemon.run('query-jobs')).toEqual([]);
  });
});

describe('bitmaps of a daemon', () => {
  test('are told of in pages', async () => {
    const daemon = await withDisk();
    const guest = await served(daemon);
    await daemon.run('block-dirty-bitmap-add', { node: 'disk', name: 'b' });
    for (const granule of [0, 2, 4]) await guest.write(granule * GRANULE, Buffer.alloc(512, 1));
    const asked = { node: 'disk', name: 'b', limit: 2 };
    expect(await daemon.run('query-block-dirty-bitmap-ranges', asked)).toEqual({
      ranges: [0, 2].map((granule) => ({ offset: granule * GRANULE, length: GRANULE })),
      next: 4 * GRANULE,
    });
    expect(
      await daemon.run('query-block-dirty-bitmap-ranges', { ...asked, offset: 4 * GRANULE }),
    ).toEqual({ ranges: [{ offset: 4 * GRANULE, length: GRANULE }] });
    const refused = await daemon.refusal('query-block-dirty-bitmap-ranges', { ...asked, limit: 0 });
    expect(refused).toMatch(/'limit'/);
  });

  test('have successors that record while they stay as they are', async () => {
    const daemon = await withDisk();
    const guest = await served(daemon);
    const bitmap = { node: 'disk', name: 'b' };
    await daemon.run('block-dirty-bitmap-add', bitmap);
    await guest.write(0, Buffer.alloc(512, 1));
    await daemon.run('block-dirty-bitmap-create-successor', bitmap);
    await guest.write(GRANULE, Buffer.alloc(512, 1));
    expect(await daemon.refusal('block-dirty-bitmap-clear', bitmap)).toMatch(/in use/);
    await daemon.run('block-dirty-bitmap-abdicate', bitmap);
    expect(await ranges(daemon, 'b')).toEqual([[GRANULE, GRANULE]]);
    await daemon.run('block-dirty-bitmap-create-successor', bitmap);
    await guest.write(0, Buffer.alloc(512, 1));
    await daemon.run('block-dirty-bitmap-reclaim', bitmap);
    expect(await ranges(daemon, 'b')).toEqual([[0, 2 * GRANULE]]);
  });

  test('are served with an export, and nobody takes them away meanwhile', async () => {
    const daemon = await withDisk();
    await daemon.run('block-dirty-bitmap-add', { node: 'disk', name: 'b' });
    const guest = await served(daemon, 'disk', { bitmaps: ['b'] });
    await guest.write(GRANULE, Buffer.alloc(512, 1));
    const context = 'qemu:dirty-bitmap:b';
    const reader = await client(join(process.cwd(), 'disk.nbd'), 'disk', [context]);
    const [extents] = await reader.blockStatus(0, SIZE, [context]);
    expect(
      [...(extents as never as Iterable<{ length: number }>)].map(({ length }) => length),
    ).toEqual([...[GRANULE, GRANULE, SIZE - 2 * GRANULE]]);
    const bitmap = { node: 'disk', name: 'b' };
    expect(await daemon.refusal('block-dirty-bitmap-remove', bitmap)).toMatch(/in use/);
    const end = { id: 'disk-export' };
    expect(await daemon.refusal('block-export-del', end)).toMatch(/still in use/);
    await daemon.run('block-export-del', { ...end, mode: 'hard' });
    expect(await daemon.event('BLOCK_EXPORT_DELETED')).toEqual(end);
    await daemon.run('block-dirty-bitmap-remove', bitmap);
  });
});

describe('views of a daemon for backup programs', () => {
  async function withAccess() {
    const daemon = await withDisk();
    const guest = await served(daemon);
    await daemon.run('block-dirty-bitmap-add', { node: 'disk', name: 'b' });
    await guest.write(0, Buffer.alloc(512, 1));
    const setup = { id: 'a', nodes: ['disk'], bitmap: 'b' };
    const answer = await daemon.run('backup-access-setup', setup);
    await guest.write(0, Buffer.alloc(512, 2));
    await guest.write(GRANULE, Buffer.alloc(512, 2));
    return { daemon, answer };
  }

  test('show one moment, and what was dirty by then', async () => {
    const { daemon, answer } = await withAccess();
    expect(answer).toEqual({
      disks: [{ node: 'disk', export: 'a.disk', mode: 'incremental', bitmap: 'b' }],
    });
    const reader = await client(join(process.cwd(), 'disk.nbd'), 'a.disk');
    const bytes = Buffer.alloc(512);
    await reader.read(0, bytes);
    expect(bytes[0]).toBe(1);
    // What was not dirty is not kept: an increment does not read it.
    await expect(reader.read(GRANULE, bytes)).rejects.toThrow(/EIO/);
    await daemon.run('backup-access-teardown', { id: 'a', outcome: 'finish' });
    expect(await ranges(daemon, 'b')).toEqual([[0, 2 * GRANULE]]);
    expect(await daemon.refusal('backup-access-teardown', { id: 'a', outcome: 'finish' })).toMatch(
      /not found/,
    );
  });

  test('give back what was dirty where the backup does not count', async () => {
    const { daemon } = await withAccess();
    expect(await daemon.refusal('backup-access-setup', { id: 'a', nodes: ['disk'] })).toMatch(
      /there already/,
    );
    await daemon.run('backup-access-teardown', { id: 'a', outcome: 'reclaim' });
    expect(await ranges(daemon, 'b')).toEqual([[0, 2 * GRANULE]]);
    expect(daemon.daemon.graph.nodes.map(({ name }) => name)).toEqual(['disk.file', 'disk']);
  });

  test('are ended by one client at a time', async () => {
    const { daemon } = await withAccess();
    const teardown = (outcome: string) => ['backup-access-teardown', { id: 'a', outcome }] as const;
    const finishing = daemon.run(...teardown('finish'));
    expect(await daemon.refusal(...teardown('reclaim'))).toBe(
      "Backup access 'a' is being ended already",
    );
    await finishing;
    expect(await ranges(daemon, 'b')).toEqual([[0, 2 * GRANULE]]);
  });

  test('end with the daemon', async () => {
    const { daemon } = await withAccess();
    await daemon.daemon.close();
  });
});
