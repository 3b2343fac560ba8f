import { GuestAgent, Monitor } from 'lacuna/qmp';
import { beforeAll, describe, expect, test } from 'vitest';
import { type Peer, usePeers } from '../../support/peers.js';

const peers = usePeers('suite');

function addressOf({ server }: Peer): { path: string } {
  return { path: server.path };
}

describe('a monitor of qemu-storage-daemon', () => {
  let daemon: Peer;

  beforeAll(async () => {
    daemon = await peers.monitoredDaemon();
  });

  test('answers, refuses, and tells events', async () => {
    await using monitor = await Monitor.connect(addressOf(daemon));
    const jobs = monitor.events(['JOB_STATUS_CHANGE']);
    const disk = { driver: 'null-co', size: 65536, 'read-zeroes': true };
    await monitor.execute('blockdev-add', { ...disk, 'node-name': 'a' });
    await monitor.execute('blockdev-add', { ...disk, 'node-name': 'b' });
    const nodes = await monitor.execute('query-named-block-nodes');
    expect(nodes.map((node) => node['node-name']).sort()).toEqual(['a', 'b']);
    await expect(monitor.execute('blockdev-del', { 'node-name': 'c' })).rejects.toMatchObject({
      code: 'ERR_QMP_COMMAND',
      errno: 'GenericError',
      description: expect.stringContaining('c'),
    });
    await monitor.execute('blockdev-mirror', {
      ...{ 'job-id': 'job', device: 'a', target: 'b', sync: 'full' },
    });
    for await (const { data } of jobs) if (data.status === 'ready') break;
    await monitor.execute('job-cancel', { id: 'job' });
    await expect.poll(() => monitor.execute('query-jobs')).toEqual([]);
  });

  test('tells which commands and arguments it has', async () => {
    await using monitor = await Monitor.connect(addressOf(daemon));
    const schema = await monitor.schema();
    expect(schema.has('blockdev-backup', 'filter-node-name', 'sync.none', 'auto-dismiss')).toBe(
      true,
    );
    expect(schema.has('block-export-add', 'type.nbd', 'bitmaps', 'nbd')).toBe(true);
    expect(schema.has('transaction', 'actions.block-dirty-bitmap-merge')).toBe(true);
    expect(schema.has('transaction', 'actions.type.blockdev-backup')).toBe(true);
    expect(schema.has('blockdev-add', 'driver.copy-before-write', 'copy-before-write')).toBe(true);
    expect(schema.has('blockdev-backup', 'no-such-argument')).toBe(false);
    expect(schema.has('no-such-command')).toBe(false);
  });

  test('that is in use does not greet a second client, and greets it later', async () => {
    const first = await Monitor.connect(addressOf(daemon));
    await expect(Monitor.connect(addressOf(daemon), { timeoutMs: 300 })).rejects.toMatchObject({
      code: 'ERR_QMP_BUSY',
    });
    await first.close();
    await using second = await Monitor.connect(addressOf(daemon));
    await second.execute('query-jobs');
  });

  test('may print its answers over many lines', async () => {
    const pretty = await peers.monitoredDaemon([], ',pretty=on');
    await using monitor = await Monitor.connect(addressOf(pretty));
    expect((await monitor.execute('query-qmp-schema')).length).toBeGreaterThan(300);
    expect(await monitor.execute('query-named-block-nodes')).toEqual([]);
  });

  test('that is killed and started again is found again', async () => {
    const mortal = await peers.monitoredDaemon();
    await using monitor = await Monitor.connect(addressOf(mortal));
    const events = monitor.events();
    await mortal.stop('SIGKILL');
    await expect(events.next()).rejects.toMatchObject({ code: 'ERR_QMP_DISCONNECTED' });
    await expect(monitor.reconnect({ timeoutMs: 100 })).rejects.toMatchObject({
      code: 'ERR_QMP_DISCONNECTED',
    });
  });
});

test('a machine tells its drives by the devices that the guest sees', async () => {
  const node = 'driver=null-co,node-name=disk,size=1048576,read-zeroes=on';
  const machine = await peers.machine([
    ...['-blockdev', node, '-device', 'virtio-blk-pci,drive=disk,id=vda'],
  ]);
  await using monitor = await Monitor.connect(addressOf(machine));
  const drives = await monitor.execute('query-block');
  expect(drives).toMatchObject([
    { qdev: expect.stringContaining('vda'), inserted: { drv: 'null-co' } },
  ]);
  expect(await monitor.execute('query-status')).toMatchObject({ running: false });
  // Known to QEMU, and never allowed out of band: the answer comes out of band all the same.
  await expect(monitor.execute('query-block', {}, { outOfBand: true })).rejects.toMatchObject({
    code: 'ERR_QMP_COMMAND',
  });
});

describe('the guest agent', () => {
  let peer: Peer;

  beforeAll(async () => {
    peer = await peers.guestAgent();
  });

  test('is synchronized, answers, and tells that it may not freeze here', async () => {
    await using agent = await GuestAgent.connect(addressOf(peer));
    await agent.ping();
    expect(await agent.status()).toBe('thawed');
    await expect(agent.freeze()).rejects.toMatchObject({
      code: 'ERR_QMP_COMMAND',
      errno: 'CommandNotFound',
    });
    await agent.sync();
    await agent.ping();
  });

  test('serves one client at a time, and a second one does not wait for ever', async () => {
    await using agent = await GuestAgent.connect(addressOf(peer));
    await expect(GuestAgent.connect(addressOf(peer), { timeoutMs: 300 })).rejects.toMatchObject({
      code: 'ERR_AGENT_ABSENT',
    });
    await agent.ping();
  });
});
