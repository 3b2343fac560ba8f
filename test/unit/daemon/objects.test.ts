import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createQcow2, openDevice } from 'lacuna';
import { NbdClient } from 'lacuna/nbd';
import { describe, expect, onTestFinished, test } from 'vitest';
import { TestDaemon } from '../../support/daemon.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

const SIZE = 1 << 20;

workInNewFolders();

/** A client of a throttled node that shows a disk in memory. */
async function throttled(limits: object): Promise<{ daemon: TestDaemon; client: NbdClient }> {
  const daemon = new TestDaemon();
  await daemon.run('object-add', { 'qom-type': 'throttle-group', id: 'g', limits });
  await daemon.run('blockdev-add', {
    ...{ driver: 'throttle', 'node-name': 't', 'throttle-group': 'g' },
    file: { driver: 'memory', size: SIZE },
  });
  const server = { type: 'unix', path: join(process.cwd(), 'nbd') } as const;
  const addr = { type: 'unix', data: { path: server.path } };
  await daemon.run('nbd-server-start', { addr });
  await daemon.run('block-export-add', { type: 'nbd', id: 'e', 'node-name': 't', writable: true });
  const client = await NbdClient.connect({ server, export: 't' });
  onTestFinished(() => client.close());
  return { daemon, client };
}

describe('a throttle group', () => {
  test('lets requests go that wait, when its limits are changed', async () => {
    const { daemon, client } = await throttled({ 'bps-read': 1 });
    const bytes = new Uint8Array(SIZE).fill(7);
    // Of holes nothing would be read.
    await client.write(0, bytes);
    await client.read(0, bytes);
    let hasCome = false;
    // What the first one has taken is given back in twelve days.
    const second = client.read(0, bytes).then(() => {
      hasCome = true;
    });
    // Writes have no limit, and what came behind the read was answered.
    await client.write(0, bytes);
    expect(hasCome).toBe(false);
    const limits = { path: '/objects/g', property: 'limits' };
    await daemon.run('qom-set', { ...limits, value: { 'bps-read': 0 } });
    await second;
  });

  test('holds up nobody when the daemon ends', async () => {
    const { daemon, client } = await throttled({ 'bps-read': 1 });
    const bytes = new Uint8Array(SIZE).fill(7);
    await client.write(0, bytes);
    await client.read(0, bytes);
    // What the first one has taken is given back in twelve days.
    const second = client.read(0, bytes).then(
      () => true,
      () => true,
    );
    await client.write(0, bytes);
    await daemon.daemon.close();
    expect(await second).toBe(true);
  });

  test('counts what is written as zero, and a large request as several, where that is said', async () => {
    const { daemon, client } = await throttled({ 'iops-write': 1, 'iops-size': 512 });
    const order: string[] = [];
    await client.writeZeroes(0, SIZE);
    const late = client.write(0, new Uint8Array(512)).then(() => order.push('write'));
    await client.read(0, new Uint8Array(512));
    order.push('read');
    const limits = { path: '/objects/g', property: 'limits' };
    await daemon.run('qom-set', { ...limits, value: { 'iops-write': 0, 'iops-size': 0 } });
    await late;
    expect(order).toEqual(['read', 'write']);
  });

  test('cannot be removed while a node has it, also one that was described inside another', async () => {
    const { daemon } = await throttled({});
    await expect(daemon.run('object-del', { id: 'g' })).rejects.toThrow(/in use/);
    await daemon.run('nbd-server-stop');
    await daemon.run('blockdev-add', {
      ...{ driver: 'raw', 'node-name': 'r' },
      file: {
        ...{ driver: 'throttle', 'throttle-group': 'g' },
        file: { driver: 'null-co', size: SIZE },
      },
    });
    await daemon.run('blockdev-del', { 'node-name': 't' });
    await expect(daemon.run('object-del', { id: 'g' })).rejects.toThrow(/in use/);
    await daemon.run('blockdev-del', { 'node-name': 'r' });
    await daemon.run('object-del', { id: 'g' });
  });
});

test('an NBD server with keys lets in only those who have one', async () => {
  const daemon = new TestDaemon();
  const key = '0123456789abcdef0123456789abcdef';
  writeFileSync('keys.psk', `alice:${key}\n`);
  const path = join(process.cwd(), 'nbd');
  await daemon.daemon.apply({
    object: [`tls-creds-psk,id=k,dir=${process.cwd()},endpoint=server`],
    blockdev: [{ driver: 'null-co', 'node-name': 'n', size: SIZE }],
    'nbd-server': `addr.type=unix,addr.path=${path},tls-creds=k`,
    export: ['nbd,id=e,node-name=n'],
  });
  const server = { type: 'unix', path } as const;
  await expect(NbdClient.connect({ server, export: 'n' })).rejects.toMatchObject({
    code: 'ERR_NBD_TLS',
  });
  const tls = { type: 'psk', username: 'alice', key } as const;
  const client = await NbdClient.connect({ server, export: 'n', tls });
  expect(client.size).toBe(SIZE);
  await client.close();
  await daemon.run('object-add', { 'qom-type': 'tls-creds-psk', id: 'c', dir: process.cwd() });
  const node = { driver: 'nbd', 'node-name': 'far', server, export: 'n' };
  await daemon.run('blockdev-add', { ...node, 'read-only': true, 'tls-creds': 'c' });
  expect(daemon.daemon.graph.node('far').size).toBe(SIZE);
});

describe('blockdev-create', () => {
  async function create(daemon: TestDaemon, options: object): Promise<string | undefined> {
    await daemon.run('blockdev-create', { 'job-id': 'c', options });
    await daemon.state('c', 'concluded');
    const [job] = (await daemon.run('query-jobs')) as { error?: string }[];
    await daemon.run('job-dismiss', { id: 'c' });
    return job.error;
  }

  test('leaves a file alone that a node is in', async () => {
    const daemon = new TestDaemon();
    writeFileSync('a.raw', Buffer.alloc(SIZE, 7));
    const file = { driver: 'file', filename: join(process.cwd(), 'a.raw') };
    await daemon.run('blockdev-add', { ...file, 'node-name': 'a', locking: 'off' });
    expect(await create(daemon, { ...file, size: 512 })).toMatch(/in use by node 'a'/);
    expect(readFileSync('a.raw').equals(Buffer.alloc(SIZE, 7))).toBe(true);
  });

  test.each(['metadata', 'falloc', 'full'])(
    'shows nothing of what the node held, with preallocation %s',
    async (preallocation) => {
      const daemon = new TestDaemon();
      writeFileSync('a', Buffer.alloc(2 * SIZE, 7));
      await daemon.run('blockdev-add', { driver: 'file', 'node-name': 'a', filename: 'a' });
      const image = { driver: 'qcow2', file: 'a', size: SIZE, preallocation };
      expect(await create(daemon, image)).toBe(undefined);
      await daemon.daemon.close();
      const device = await openDevice({ driver: 'qcow2', file: { driver: 'file', filename: 'a' } });
      onTestFinished(() => device.close());
      const bytes = new Uint8Array(SIZE).fill(1);
      await device.read(0, bytes);
      expect(bytes).toEqual(new Uint8Array(SIZE));
    },
  );

  test('refuses a node that is used, and another file than clients may name', async () => {
    const daemon = new TestDaemon({ allow: [process.cwd()] });
    await createQcow2('d.qcow2', { size: SIZE });
    const file = { driver: 'file', 'node-name': 'f', filename: join(process.cwd(), 'd.qcow2') };
    await daemon.run('blockdev-add', { driver: 'qcow2', 'node-name': 'd', file });
    const before = readFileSync('d.qcow2');
    expect(await create(daemon, { driver: 'qcow2', file: 'f', size: SIZE })).toMatch(
      /is used by 'd'/,
    );
    expect(readFileSync('d.qcow2').equals(before)).toBe(true);
    const options = { driver: 'file', filename: '/tmp/nowhere/x', size: 1 };
    await expect(daemon.run('blockdev-create', { 'job-id': 'c', options })).rejects.toThrow(
      /clients may use/,
    );
  });
});

describe('an image that is in use', () => {
  test('names its backing file otherwise, with its format, and is read-only again', async () => {
    const daemon = new TestDaemon();
    writeFileSync('base.raw', Buffer.alloc(SIZE, 7));
    await createQcow2('top.qcow2', {
      size: SIZE,
      backing: { filename: 'base.raw', format: 'raw' },
    });
    await daemon.run('blockdev-add', {
      ...{ driver: 'qcow2', 'node-name': 'top', 'read-only': true },
      file: { driver: 'file', filename: 'top.qcow2' },
      backing: { driver: 'file', filename: 'base.raw' },
    });
    const names = { device: 'top', 'image-node-name': 'top', 'backing-file': 'other.raw' };
    await daemon.run('change-backing-file', names);
    const node = daemon.daemon.graph.node('top');
    expect(node.writable).toBe(false);
    expect(node.device.details).toMatchObject({ backingFile: 'other.raw', backingFormat: 'raw' });
    const bytes = new Uint8Array(512);
    await node.device.read(0, bytes);
    expect(bytes).toEqual(new Uint8Array(512).fill(7));
  });

  test('is opened for writing, or nothing of a list is, where one cannot be', async () => {
    const daemon = new TestDaemon();
    const files = ['a', 'b'].map((name) => {
      writeFileSync(name, Buffer.alloc(SIZE));
      return { driver: 'file', 'node-name': name, filename: name };
    });
    for (const one of files) await daemon.run('blockdev-add', { ...one, 'read-only': true });
    const isWritable = () =>
      files.map((one) => daemon.daemon.graph.node(one['node-name']).writable);
    await daemon.run('block-dirty-bitmap-add', { node: 'b', name: 'busy' });
    const path = join(process.cwd(), 'nbd');
    await daemon.run('nbd-server-start', { addr: { type: 'unix', data: { path } } });
    const served = { type: 'nbd', id: 'e', 'node-name': 'b', bitmaps: ['busy'] };
    await daemon.run('block-export-add', served);
    await expect(daemon.run('blockdev-reopen', { options: files })).rejects.toThrow(/in use/);
    expect(isWritable()).toEqual([false, false]);
    await daemon.run('nbd-server-stop');
    await daemon.run('blockdev-reopen', { options: files });
    expect(isWritable()).toEqual([true, true]);
  });
});
