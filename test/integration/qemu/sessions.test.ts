/** Backups of running machines: what is planned and why, what is in the way, and every way in which one can end. */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createQcow2 } from 'lacuna';
import type { BackupOptions, BackupSession, Machine } from 'lacuna/qemu';
import { Random } from 'lacuna/testing';
import { describe, expect, onTestFinished, test } from 'vitest';
import {
  breakingVersions,
  LiveMachine,
  type LiveOptions,
  Relay,
} from '../../support/live-machine.js';
import { noise } from '../../support/noise.js';
import { run, usePeers } from '../../support/peers.js';
import { rememberedBy } from '../../support/remembered.js';

const peers = usePeers();
const SIZE = 2 ** 21;

async function started(
  options: LiveOptions = {},
): Promise<{ live: LiveMachine; machine: Machine }> {
  const live = await LiveMachine.start(peers, { size: SIZE, ...options });
  const machine = await live.connect();
  onTestFinished(() => machine.close());
  return { live, machine };
}

function begin(live: LiveMachine, machine: Machine, options: BackupOptions = {}) {
  return machine.backup({ disks: live.choices, ...options });
}

/** A backup that is read and finished; its generation. */
async function backedUp(live: LiveMachine, machine: Machine, base?: string): Promise<string> {
  const session = await begin(live, machine, { base });
  await readAll(session);
  const { point } = await session.finish(() => {});
  return point.generation!;
}

/** The same, with a bitmap that is in the image because QEMU was ended and started again. */
async function storedBackup(live: LiveMachine, machine: Machine): Promise<string> {
  const base = await backedUp(live, machine);
  await live.stop();
  await live.start();
  return base;
}

async function readAll(session: BackupSession): Promise<number> {
  let bytes = 0;
  for (const disk of session.disks) for await (const { length } of disk.extents()) bytes += length;
  return bytes;
}

async function whyFull(live: LiveMachine, machine: Machine, base: string): Promise<string> {
  const { disks } = await machine.plan({ disks: live.choices, base });
  expect(disks[0].mode).toBe('full');
  return disks[0].reason;
}

describe('a plan', () => {
  test('says why a backup is full, and how much an increment has', async () => {
    const { live, machine } = await started();
    const disks = live.choices;
    expect((await machine.plan({ disks })).disks[0].reason).toBe('no earlier backup is given');
    const base = await backedUp(live, machine);
    await live.guests[0].write(100, noise(10));
    const { disks: planned } = await machine.plan({ disks, base });
    expect(planned).toMatchObject([{ mode: 'incremental', dirtyBytes: 65536 }]);
    expect(planned[0].reason).toContain('has marked every write since');
    const bitmap = { node: 'vda', name: `lacuna-${base}@vda` };
    await live.other.execute('block-dirty-bitmap-disable', bitmap);
    expect(await whyFull(live, machine, base)).toContain('somebody has disabled it');
    await live.other.execute('block-dirty-bitmap-remove', bitmap);
    expect(await whyFull(live, machine, base)).toContain('somebody has removed it');
    expect((await machine.plan({ disks, mode: 'full', base })).disks[0].reason).toContain('asked');
  });

  test('sees that a snapshot was made since', async () => {
    const { live, machine } = await started();
    const base = await backedUp(live, machine);
    const overlay = join(live.folder, '..', 'overlay.qcow2');
    await createQcow2(overlay, { size: SIZE });
    await live.other.execute('blockdev-add', {
      ...{ driver: 'qcow2', 'node-name': 'overlay', backing: null },
      file: { driver: 'file', filename: overlay },
    });
    await live.other.execute('blockdev-snapshot', { node: 'vda', overlay: 'overlay' });
    const choice = [{ node: 'overlay', name: 'vda' }];
    const { disks } = await machine.plan({ disks: choice, base });
    expect(disks[0].reason).toContain('on the node "vda" and not on the top layer');
    // The old bitmap cannot be removed any more, which is told once, and is in nobody's way.
    const session = await machine.backup({ disks: choice, base });
    await readAll(session);
    const { warnings, point } = await session.finish(() => {});
    expect(warnings).toEqual([expect.stringContaining('stays in the image of the node "vda"')]);
    expect((await live.leftovers()).filter((text) => text.startsWith('file'))).toEqual([]);
    const report = await machine.recover({ generation: point.generation! });
    expect(report).toMatchObject({ recovered: [], warnings: [] });
  });

  test('sees that two disks were exchanged, each with a bitmap of the base', async () => {
    const { live, machine } = await started({ disks: 2 });
    const base = await backedUp(live, machine);
    const disks = [
      { node: 'vda', name: 'vdb' },
      { node: 'vdb', name: 'vda' },
    ];
    const { disks: planned } = await machine.plan({ disks, base });
    expect(planned.map(({ mode }) => mode)).toEqual(['full', 'full']);
    expect(planned[0].reason).toContain('disks were exchanged since');
  });

  test('sees that QEMU was killed, after which nothing but a full backup is right', async () => {
    const { live, machine } = await started();
    const base = await storedBackup(live, machine);
    await live.stop('SIGKILL');
    await live.start();
    await using again = await live.connect();
    expect(await whyFull(live, again, base)).toContain('may lack writes');
    const next = await backedUp(live, again, base);
    expect(await live.leftovers()).toEqual(live.bitmapsOf(next));
  });

  test('goes on from bitmaps that an image has kept, also for a raw data file, and not from those of a raw disk', async () => {
    for (const kind of ['qcow2', 'raw data file', 'raw'] as const) {
      const format = kind === 'raw' ? 'raw' : 'qcow2';
      const { live, machine } = await started({ format, hasDataFile: kind === 'raw data file' });
      await live.guests[0].write(3, noise(100_000));
      const base = await backedUp(live, machine);
      await live.stop();
      await live.start();
      await using again = await live.connect();
      if (format === 'raw') {
        expect(await whyFull(live, again, base)).toContain('bitmaps of raw disks end with');
        continue;
      }
      await live.guests[0].write(0, noise(1));
      const { disks } = await again.plan({ disks: live.choices, base });
      expect(disks).toMatchObject([{ mode: 'incremental', dirtyBytes: 65536 }]);
    }
  });

  test.each([
    ['a disk that is not there', { disks: ['vdz'] }, /no disk "vdz": it has no disks/],
    ['a node that is not there', { disks: [{ node: 'x' }] }, /no node "x"/],
    ['one disk twice', { disks: [{ node: 'vda' }, { node: 'vda', name: 'b' }] }, /two disks/],
    ['no disk', {}, /no disk that it can write/],
  ])('refuses %s', async (_, options, message) => {
    const { machine } = await started();
    const failure = await machine.plan(options).catch((error) => error);
    expect(failure).toMatchObject({ code: 'ERR_MACHINE_DISK' });
    expect(failure.message).toMatch(message);
  });
});

describe('a backup does not begin, and changes nothing,', () => {
  test('where a job works on the disk', async () => {
    const { live, machine } = await started();
    await live.other.execute('blockdev-add', {
      ...{ driver: 'null-co', 'node-name': 'target', size: SIZE, 'read-zeroes': true },
    });
    const job = { 'job-id': 'theirs', device: 'vda', target: 'target', sync: 'none' };
    await live.other.execute('blockdev-backup', job);
    const failure = await begin(live, machine).catch((error) => error);
    expect(failure).toMatchObject({ code: 'ERR_MACHINE_BUSY', retryable: true });
    expect(failure.message).toContain('the job "theirs" works on vda');
    await live.other.execute('block-job-cancel', { device: 'theirs' });
  });

  test('where a backup is running already', async () => {
    const { live, machine } = await started();
    const session = await begin(live, machine);
    const failure = await begin(live, machine).catch((error) => error);
    expect(failure).toMatchObject({ code: 'ERR_MACHINE_BUSY' });
    expect(failure.message).toContain('a backup or mirror of vda is running, or has left its job');
    await session.fail();
  });

  test('where somebody uses the bitmap that it would begin from', async () => {
    const { live, machine } = await started();
    const base = await backedUp(live, machine);
    const name = `lacuna-${base}@vda`;
    const bitmap = { node: 'vda', name };
    await live.other.execute('block-export-add', {
      ...{ type: 'nbd', id: 'guest-theirs', 'node-name': 'vda', name: 'theirs', bitmaps: [bitmap] },
    });
    const failure = await begin(live, machine, { base }).catch((error) => error);
    expect(failure).toMatchObject({ code: 'ERR_MACHINE_BUSY' });
    expect(failure.message).toContain(`another operation uses the bitmap "${name}" of vda`);
    expect(await live.leftovers()).toEqual(live.bitmapsOf(base));
  });

  test('where QEMU runs an NBD server of which nobody said where it listens', async () => {
    const { live } = await started();
    await live.proxy.cut();
    await using machine = await live.connect({ nbd: undefined });
    const failure = await begin(live, machine).catch((error) => error);
    expect(failure).toMatchObject({ code: 'ERR_MACHINE_BUSY' });
    expect(failure.message).toContain('with the exports guest-vda');
    expect(await live.leftovers()).toEqual([]);
  });

  test('where QEMU refuses the transaction at the last moment', async () => {
    const { live, machine } = await started({ disks: 2 });
    live.proxy.reset({
      before: async ({ name }) => {
        if (name !== 'transaction') return;
        await live.other.execute('block-dirty-bitmap-add', { node: 'vdb', name: 'lacuna-g1@vdb' });
      },
    });
    await expect(begin(live, machine, { generation: 'g1' })).rejects.toMatchObject({
      code: 'ERR_QMP_COMMAND',
      description: expect.stringContaining('already exists'),
    });
    // Everything of that name is taken for ours and gone: it had been made for this backup alone.
    expect(await live.leftovers()).toEqual([]);
  });

  test('where its options make no sense', async () => {
    const { live, machine } = await started();
    const refused = [
      [{ generation: 'a b' }, /1 to 64 letters/],
      [{ generation: 'migrate.1' }, /does not begin with "migrate\."/],
      [{ generation: 'g', base: 'g' }, /needs a new name/],
      [{ scratchBytes: 5 }, /1 MiB or more/],
      [{ fetch: 'push', pushRate: Number.POSITIVE_INFINITY }, /a rate must be a number of bytes/],
      [{ mode: 'increment' }, /has no mode "increment"/],
      [{ disks: [] }, /at least one disk/],
      [{ freeze: 'require' }, /connected without an agent/],
    ] as const;
    for (const [options, message] of refused) {
      await expect(begin(live, machine, options as never)).rejects.toThrow(message);
    }
    expect(await live.leftovers()).toEqual([]);
  });
});

describe('a backup', () => {
  test('is copied into files that other programs read', async () => {
    const { live, machine } = await started();
    const folder = await peers.folder();
    const [guest] = live.guests;
    await guest.write(70000, noise(300000));
    const full = await begin(live, machine);
    const base = join(folder, 'base.qcow2');
    const report = await full.disk('vda').copyTo(base);
    expect(report.movedBytes).toBeLessThan(SIZE / 2);
    const { generation } = (await full.finish(() => {})).point;
    await guest.write(0, noise(5000));
    await guest.zero(131072, 65536);
    const content = Buffer.from(guest.content);
    const increment = await begin(live, machine, { base: generation });
    await guest.scribble(new Random(1), 20);
    const top = join(folder, 'top.qcow2');
    await increment
      .disk('vda')
      .copyTo(top, { image: { backing: { filename: base, format: 'qcow2' } } });
    await increment.finish(() => {});
    await run('qemu-img', ['convert', '-O', 'raw', top, join(folder, 'flat.raw')]);
    await run('qemu-img', ['check', top]);
    const { readFile } = await import('node:fs/promises');
    expect((await readFile(join(folder, 'flat.raw'))).equals(content)).toBe(true);
  });

  test('leaves nothing behind on a signal that outlives it', async () => {
    const { live, machine } = await started();
    await live.guests[0].write(0, noise(65536));
    const { signal } = new AbortController();
    const session = await begin(live, machine, { signal });
    await session.disks[0].copyTo(join(live.folder, '..', 'copy.raw'), { signal });
    for await (const _ of session.disks[0].extents({ signal }));
    await session.finish(() => {});
    expect(rememberedBy(signal)).toBe(0);
  });

  test('that is given up leaves the old bitmaps, with all that was written meanwhile', async () => {
    const { live, machine } = await started();
    const base = await backedUp(live, machine);
    await live.guests[0].write(0, noise(1));
    const session = await begin(live, machine, { base });
    await live.guests[0].write(10 * 65536, noise(1));
    await session.fail();
    await session.fail();
    expect(session.signal.aborted).toBe(true);
    expect(await live.leftovers()).toEqual(live.bitmapsOf(base));
    const { disks } = await machine.plan({ disks: live.choices, base });
    expect(disks[0].dirtyBytes).toBe(2 * 65536);
    await expect(session.finish(() => {})).rejects.toThrow(/has ended/);
  });

  test('that leaves its block without being finished is given up', async () => {
    const { live, machine } = await started();
    {
      await using session = await begin(live, machine);
      expect(session.disks).toHaveLength(1);
    }
    expect(await live.leftovers()).toEqual([]);
  });

  test('that is forgotten leaves no bitmaps, and so does a generation', async () => {
    const { live, machine } = await started();
    const base = await backedUp(live, machine);
    await (await begin(live, machine, { base })).forget();
    expect(await live.leftovers()).toEqual([]);
    await machine.forget(await backedUp(live, machine));
    expect(await live.leftovers()).toEqual([]);
  });

  test('that is a copy leaves no trace, and increments go on from the base', async () => {
    const { live, machine } = await started();
    const base = await backedUp(live, machine);
    const session = await begin(live, machine, { base, mode: 'copy' });
    expect(session.point).not.toHaveProperty('generation');
    expect(await readAll(session)).toBe(SIZE);
    await session.finish(() => {});
    expect(await live.leftovers()).toEqual(live.bitmapsOf(base));
  });

  test('may keep the bitmap that it began from, for differential backups', async () => {
    const { live, machine } = await started();
    const base = await backedUp(live, machine);
    await live.guests[0].write(0, noise(1));
    for (let round = 1; round < 3; round++) {
      await live.guests[0].write(round * 65536, noise(1));
      const session = await begin(live, machine, { base, keepBase: true, generation: `d${round}` });
      expect(await readAll(session)).toBe((1 + round) * 65536);
      await session.finish(() => {});
    }
    expect(await live.leftovers()).toEqual(
      [base, 'd1', 'd2'].map((name) => `bitmap vda/lacuna-${name}@vda`).sort(),
    );
  });

  test('is not over when its manifest cannot be written', async () => {
    const { live, machine } = await started();
    const base = await backedUp(live, machine);
    const session = await begin(live, machine, { base });
    const full = new Error('the disk is full');
    await expect(session.finish(() => Promise.reject(full))).rejects.toBe(full);
    await session.fail();
    expect(await live.leftovers()).toEqual(live.bitmapsOf(base));
  });

  test('is not finished while it is copied', async () => {
    const { live, machine } = await started();
    await live.guests[0].write(0, noise(SIZE));
    const session = await begin(live, machine);
    const job = session.disk('vda').copyTo(join(await peers.folder(), 'copy.qcow2'));
    await expect(session.finish(() => expect.unreachable())).rejects.toThrow(/still being read/);
    await job;
    await session.finish(() => {});
    const next = await begin(live, machine);
    const stopped = next.disk('vda').copyTo('/nowhere/copy.qcow2');
    await expect(stopped).rejects.toThrow();
    await next.finish(() => {});
  });

  test('is not finished while it is read, nor without a manifest', async () => {
    const { live, machine } = await started();
    await live.guests[0].write(0, noise(SIZE));
    const session = await begin(live, machine);
    for await (const _ of session.disk('vda').extents()) {
      await expect(session.finish(() => {})).rejects.toThrow(/still being read/);
      break;
    }
    await expect(session.finish(undefined as never)).rejects.toThrow(/needs a record/);
    expect(() => session.disk('vdz')).toThrow(/it has vda/);
    await session.fail();
  });

  test('goes on when its connection to the monitor is lost', async () => {
    const { live, machine } = await started();
    await live.guests[0].write(0, noise(SIZE));
    const session = await begin(live, machine);
    live.proxy.cut();
    expect(await readAll(session)).toBe(SIZE);
    const { warnings, point } = await session.finish(() => {});
    expect(warnings).toEqual([]);
    expect(await live.leftovers()).toEqual(live.bitmapsOf(point.generation));
  });

  test('goes on when its connection to the view is lost', async () => {
    const { live, machine: first } = await started();
    await first.close();
    await live.guests[0].write(0, noise(SIZE));
    const relay = await Relay.start(live.nbd.path);
    onTestFinished(() => relay.stop());
    const machine = await live.connect({ nbd: { type: 'unix', path: relay.path } });
    onTestFinished(() => machine.close());
    const session = await begin(live, machine);
    let bytes = 0;
    for await (const { length, offset, data } of session
      .disk('vda')
      .extents({ requestSize: 65536, requests: 1 })) {
      expect(live.guests[0].content.subarray(offset, offset + length).equals(data!)).toBe(true);
      bytes += length;
      if (bytes === 5 * 65536) relay.cut();
    }
    expect(bytes).toBe(SIZE);
    expect(relay.connections).toBe(2);
    const { warnings, point } = await session.finish(() => {});
    expect(warnings).toEqual([]);
    expect(await live.leftovers()).toEqual(live.bitmapsOf(point.generation));
  });

  test('is finished although somebody has removed the bitmap that it began from', async () => {
    const { live, machine } = await started();
    const base = await backedUp(live, machine);
    const session = await begin(live, machine, { base });
    await live.other.execute('block-dirty-bitmap-remove', {
      node: 'vda',
      name: `lacuna-${base}@vda`,
    });
    await readAll(session);
    const { warnings, point } = await session.finish(() => {});
    expect(warnings).toEqual([]);
    expect(await live.leftovers()).toEqual(live.bitmapsOf(point.generation));
  });
});

describe('a view that is lost', () => {
  test('because somebody has cancelled its job ends the reading, and nothing counts', async () => {
    const { live, machine } = await started();
    await live.guests[0].write(0, noise(SIZE));
    const session = await begin(live, machine);
    const [{ id }] = await live.other.execute('query-jobs');
    const reading = (async () => {
      for await (const _ of session.disk('vda').extents({ requestSize: 65536, requests: 1 })) {
        if (session.lost !== undefined) continue;
        await live.other.execute('job-cancel', { id }).catch(() => {});
        await expect.poll(() => session.lost).toBeDefined();
      }
    })();
    await expect(reading).rejects.toMatchObject({ code: 'ERR_VIEW_LOST' });
    await expect(session.finish(() => expect.unreachable())).rejects.toMatchObject({
      code: 'ERR_VIEW_LOST',
    });
    await session.fail();
    expect(await live.leftovers()).toEqual([]);
  });

  test('because scratch space is used up never fails a write of the guest', async () => {
    const { live, machine } = await started({ size: 2 ** 23 });
    await live.guests[0].write(0, noise(2 ** 23));
    const session = await begin(live, machine, { scratchBytes: 2 ** 20 });
    for (let offset = 0; offset < 2 ** 23; offset += 65536) {
      await live.guests[0].write(offset, noise(65536));
    }
    await expect.poll(() => session.lost?.code).toBe('ERR_SCRATCH_FULL');
    await expect(session.check()).rejects.toMatchObject({ code: 'ERR_SCRATCH_FULL' });
    expect(() => session.disk('vda').copyTo('/nowhere')).toThrow(/scratch/);
    await session.fail();
    expect(await live.leftovers()).toEqual([]);
  });

  test.each(breakingVersions())(
    'because the file system of the scratch images is full never fails a write of the guest of QEMU %s',
    async () => {
      const size = 2 ** 23;
      const live = await LiveMachine.start(peers, { size });
      const folder = join(live.folder, '..', 'small');
      mkdirSync(folder);
      await run('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', folder]);
      const machine = await live.connect({ folder });
      try {
        await live.guests[0].write(0, noise(size));
        // More than there is room for: QEMU does not warn.
        const session = await begin(live, machine, { scratchBytes: 2 ** 30 });
        const content = Buffer.from(live.guests[0].content);
        for (let offset = size - 65536; offset >= 0; offset -= 65536) {
          await live.guests[0].write(offset, noise(65536));
        }
        const image = Buffer.from(content);
        const reading = (async () => {
          for await (const { offset, data } of session.disk('vda').extents())
            image.set(data!, offset);
        })();
        await expect(reading).rejects.toMatchObject({ code: expect.stringMatching(/^ERR_/) });
        // Nothing else than what it held was read before.
        expect(image.equals(content)).toBe(true);
        await session.fail();
        expect(await live.leftovers()).toEqual([]);
        expect(readdirSync(folder)).toEqual([]);
      } finally {
        await machine.close();
        // Where the test fails, QEMU still has files open there.
        await run('umount', ['-l', folder]);
      }
    },
  );

  test('because scratch space is used up is noticed although the connection was lost meanwhile', async () => {
    const { live, machine } = await started({ size: 2 ** 23 });
    await live.guests[0].write(0, noise(2 ** 23));
    const session = await begin(live, machine, { scratchBytes: 2 ** 20 });
    let reconnect = () => {};
    const written = new Promise<void>((resolve) => {
      reconnect = resolve;
    });
    live.proxy.reset({ before: () => written });
    live.proxy.cut();
    for (let offset = 0; offset < 2 ** 22; offset += 65536) {
      await live.guests[0].write(offset, noise(65536));
    }
    reconnect();
    await expect.poll(() => session.lost?.code).toBe('ERR_SCRATCH_FULL');
    await session.fail();
    expect(await live.leftovers()).toEqual([]);
  });

  test('because QEMU was killed is told, and what is left is found by the next one', async () => {
    const { live, machine: first } = await started();
    const base = await storedBackup(live, first);
    const machine = await live.connect();
    const session = await begin(live, machine, { base });
    await readAll(session);
    await machine.close();
    await live.stop('SIGKILL');
    await expect(session.finish(() => expect.unreachable())).rejects.toMatchObject({
      code: 'ERR_VIEW_LOST',
    });
    await expect(session.fail()).rejects.toMatchObject({ code: 'ERR_QMP_DISCONNECTED' });
    await live.start();
    expect((await live.leftovers()).map((text) => text.split(' ')[0])).toEqual(['bitmap', 'file']);
    const again = await live.connect({ monitor: { path: live.proxy.path } });
    onTestFinished(() => again.close());
    const report = await again.recover({ generation: base, unknown: true });
    expect(report.warnings).toEqual([]);
    expect(await whyFull(live, again, base)).toContain('may lack writes');
  });
});

test('what a session without a folder has left is named, and taken away when that is asked', async () => {
  const { live, machine } = await started();
  const session = await begin(live, machine);
  for (const disk of session.disks) await disk.device.close();
  rmSync(live.folder, { recursive: true });
  const report = await machine.recover({ generation: null });
  expect(report.unknown).toHaveLength(1);
  await machine.recover({ generation: null, unknown: true });
  const left = await live.other.execute('query-named-block-nodes');
  expect(left.map((node) => node['node-name']).sort()).toEqual(['vda', 'vda-file']);
});

test('a session whose journal cannot be read is told, and those behind it are taken away', async () => {
  const { live, machine } = await started();
  for (const name of ['lacuna-00000001', 'lacuna-00000002']) {
    mkdirSync(join(live.folder, name));
    writeFileSync(join(live.folder, name, 'lock'), '');
  }
  const broken = join(live.folder, 'lacuna-00000001', 'journal.json');
  writeFileSync(broken, 'no journal');
  const failure = await machine.recover({ generation: null }).catch((error) => error);
  expect(failure).toMatchObject({ code: 'ERR_MACHINE_LEFTOVERS', device: broken });
  expect(await live.leftovers()).toEqual(['file lacuna-00000001']);
  rmSync(broken);
  expect(await machine.recover({ generation: null })).toMatchObject({ running: [] });
  expect(await live.leftovers()).toEqual([]);
});

test('a session that is running is not taken for one that has died', async () => {
  const { live, machine } = await started();
  const session = await begin(live, machine);
  const { running, recovered } = await machine.recover({ generation: null });
  expect({ running: running.length, recovered }).toEqual({ running: 1, recovered: [] });
  await readAll(session);
  await session.finish(() => {});
});
