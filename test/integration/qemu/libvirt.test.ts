/** Running machines of libvirt's: the same sessions, over its backups and checkpoints. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type BackupOptions, type BackupSession, backupMachine, LibvirtMachine } from 'lacuna/qemu';
import { Repository } from 'lacuna/repository';
import { Random } from 'lacuna/testing';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { DOMAIN_DISK_BYTES, Libvirt, type TestDomain } from '../../support/libvirt.js';
import { firstSeed } from '../../support/long-run.js';
import { run } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';

const CHILD = fileURLToPath(new URL('backup-child.mjs', import.meta.url));
const random = new Random(firstSeed());
let libvirt: Libvirt;

beforeAll(async () => {
  libvirt = await Libvirt.start();
});
afterAll(() => libvirt.remove());

/** A domain, and what its backups have stored. */
class Chain {
  readonly domain: TestDomain;
  readonly images: Buffer[];
  generation: string | undefined;

  constructor(domain: TestDomain) {
    this.domain = domain;
    this.images = domain.disks.map(() => Buffer.alloc(DOMAIN_DISK_BYTES));
  }

  /** One backup, while the guest writes; the restored disks must be what they were when it began. */
  async backUp(options: BackupOptions = {}): Promise<BackupSession> {
    const machine = await this.domain.find();
    await machine.recover({ generation: this.generation ?? null });
    const then = this.domain.content.map((bytes) => Buffer.from(bytes));
    const session = await machine.backup({ base: this.generation, ...options });
    await this.domain.scribble(random);
    await this.read(session);
    const { warnings } = await session.finish(() => {});
    expect(warnings).toEqual([]);
    this.generation = session.point.generation ?? this.generation;
    for (const [index, image] of this.images.entries()) {
      expect(image.equals(then[index]), this.domain.disks[index].name).toBe(true);
    }
    return session;
  }

  async read(session: BackupSession): Promise<void> {
    for (const [index, disk] of session.disks.entries()) {
      if (disk.mode === 'full') this.images[index].fill(0xee);
      for await (const { offset, length, data } of disk.extents()) {
        this.images[index].set(data ?? Buffer.alloc(length), offset);
      }
    }
  }

  async expectOnlyTraces(): Promise<void> {
    const traces = this.generation === undefined ? [] : this.domain.tracesOf(this.generation);
    expect(await this.domain.leftovers()).toEqual(traces);
  }
}

test('a full backup and three increments hold the disks as they were, where QEMU runs as another user; raw disks are taken in full, with the reason', async () => {
  const chain = new Chain(
    await libvirt.domain({ formats: ['qcow2', 'raw', 'qcow2'], isOtherUser: true }),
  );
  await chain.domain.scribble(random, 8);
  const first = await chain.backUp();
  expect(first.disks.map(({ mode }) => mode)).toEqual(['full', 'full', 'full']);
  for (let round = 0; round < 3; round++) {
    await chain.domain.scribble(random);
    const { disks } = await chain.backUp();
    expect(disks.map(({ mode }) => mode)).toEqual(['incremental', 'full', 'incremental']);
    expect(disks[1].reason).toBe('libvirt keeps no bitmaps of raw disks');
    expect((await disks[0].disk).file).toBe(chain.domain.disks[0].file);
    await chain.expectOnlyTraces();
  }
  await chain.backUp({ mode: 'copy' });
  await chain.expectOnlyTraces();
  const [plan] = (await (await chain.domain.find()).plan({ base: chain.generation })).disks;
  expect(plan).toMatchObject({ mode: 'incremental', disk: { name: 'vda', format: 'qcow2' } });
  expect(plan.dirtyBytes).toBeGreaterThan(0);
  await (await chain.domain.find()).forget(chain.generation!);
  expect(await chain.domain.leftovers()).toEqual([]);
});

test('a machine that virtnbdbackup backs up is taken in full first, with the reason, and its chain can go on afterwards', async () => {
  const chain = new Chain(await libvirt.domain({ formats: ['qcow2'] }));
  const { domain } = chain;
  const output = join(libvirt.folder, 'virtnbdbackup');
  const theirs = (level: string) =>
    run('virtnbdbackup', [
      ...['-U', libvirt.connect, '-d', domain.name, '-l', level, '-o', output, '--noprogress'],
      ...['-S', libvirt.folder, '-f', join(libvirt.folder, 'vnb.sock')],
    ]);
  await domain.scribble(random, 8);
  await theirs('full');
  // The URI may name the transport as well.
  const connect = libvirt.connect.replace('qemu:', 'qemu+unix:');
  const { folder } = domain;
  const machine = await LibvirtMachine.find({ domain: domain.name, connect, folder });
  const [plan] = (await machine.plan()).disks;
  expect(plan).toMatchObject({
    mode: 'full',
    reason:
      'no earlier backup is given, and the checkpoints of other tools ("virtnbdbackup.0") count from backups that are not here',
  });
  await expect(machine.plan({ fetch: 'push' })).rejects.toMatchObject({
    code: 'ERR_QMP_UNSUPPORTED',
  });
  const modes: string[] = [];
  for (let round = 0; round < 3; round++) {
    await domain.scribble(random);
    modes.push((await chain.backUp()).disks[0].mode);
  }
  expect(modes).toEqual(['full', 'incremental', 'incremental']);
  // It goes on beside no checkpoint of others, and ours leave its own alone.
  await expect(theirs('inc')).rejects.toThrow('Foreign checkpoint found');
  await (await domain.find()).forget(chain.generation!);
  await theirs('inc');
  const checkpoints = await libvirt.virsh('checkpoint-list', domain.name, '--name');
  expect(checkpoints.split('\n').filter(Boolean)).toEqual(['virtnbdbackup.0', 'virtnbdbackup.1']);
});

test('one disk of several can be chosen, and wrong choices name what there is', async () => {
  const chain = new Chain(await libvirt.domain({ formats: ['qcow2', 'qcow2'] }));
  const machine = await chain.domain.find();
  await chain.domain.scribble(random);
  await using session = await machine.backup({ disks: ['vdb'] });
  expect(session.disks.map(({ name }) => name)).toEqual(['vdb']);
  await expect(machine.plan({ disks: ['vdx'] })).rejects.toThrow(
    'there is no disk "vdx": its disks are vda, vdb',
  );
  await expect(machine.plan({ disks: [{ node: 'x' }] })).rejects.toThrow(TypeError);
  await session.fail();
  await chain.expectOnlyTraces();
});

test('machines go into a repository, with their definition', async () => {
  const chain = new Chain(await libvirt.domain({ formats: ['qcow2', 'raw'] }));
  const { domain } = chain;
  const repository = Repository.open(join(libvirt.folder, 'repository'), { create: true });
  for (const modes of [
    ['full', 'full'],
    ['given', 'digests'],
  ]) {
    await domain.scribble(random);
    const then = domain.content.map((bytes) => Buffer.from(bytes));
    const { disks, point, warnings } = await backupMachine(repository, await domain.find(), {
      machine: 'web',
    });
    expect(warnings).toEqual([]);
    expect(disks.map(({ mode }) => mode)).toEqual(modes);
    expect(point.configuration).toMatchObject({
      libvirt: { definition: expect.stringContaining(`<name>${domain.name}</name>`) },
    });
    for (const [index, disk] of point.disks.entries()) {
      const image = join(repository.path, 'machines/web/disks', disk.name, disk.file.name);
      const raw = join(libvirt.folder, 'restored');
      await run('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', image, raw]);
      expect(readFileSync(raw).equals(then[index]), disk.name).toBe(true);
    }
    expect(await domain.leftovers()).toEqual(
      domain.tracesOf(`${repository.id.slice(0, 8)}-${point.id}`),
    );
  }
  // Checkpoints of several points may be kept, until fewer are wanted.
  const newest: string[] = [];
  for (const keepBitmaps of [2, 1]) {
    const options = { machine: 'web', keepBitmaps };
    const { point } = await backupMachine(repository, await domain.find(), options);
    newest.push(`${repository.id.slice(0, 8)}-${point.id}`);
    if (keepBitmaps === 1) continue;
    const checkpoints = await libvirt.virsh('checkpoint-list', domain.name, '--name');
    expect(checkpoints.split('\n').filter(Boolean)).toHaveLength(keepBitmaps);
  }
  expect(await domain.leftovers()).toEqual(domain.tracesOf(newest[1]));
});

test('a libvirt that is restarted during a backup and between two does not matter', async () => {
  const chain = new Chain(await libvirt.domain());
  await chain.domain.scribble(random);
  await chain.backUp();
  await libvirt.stop();
  await libvirt.start();
  await chain.domain.scribble(random);
  const then = Buffer.from(chain.domain.content[0]);
  const session = await (await chain.domain.find()).backup({ base: chain.generation });
  expect(session.disks[0].mode).toBe('incremental');
  await libvirt.stop();
  await chain.read(session);
  await expect(session.check()).rejects.toMatchObject({ code: 'ERR_VIEW_LOST' });
  await libvirt.start();
  await session.finish(() => {});
  chain.generation = session.point.generation;
  expect(chain.images[0].equals(then)).toBe(true);
  await chain.expectOnlyTraces();
});

test('transient domains that were ended go on with increments', async () => {
  const chain = new Chain(await libvirt.domain({ isTransient: true }));
  const { domain } = chain;
  await domain.scribble(random);
  await chain.backUp();
  const kept = () => domain.leftovers().then((all) => all.filter((one) => one.startsWith('file')));
  const uuid = (await libvirt.virsh('domuuid', domain.name)).trim();
  expect(await kept()).toEqual([`file ${uuid}.lacuna-${chain.generation}.xml`]);
  await libvirt.virsh('destroy', domain.name);
  await domain.boot();
  await domain.scribble(random);
  const { disks } = await chain.backUp();
  expect(disks[0]).toMatchObject({ mode: 'incremental' });
  expect(await kept()).toEqual([`file ${uuid}.lacuna-${chain.generation}.xml`]);
  await (await domain.find()).forget(chain.generation!);
  expect(await domain.leftovers()).toEqual([]);
});

test('when QEMU was killed, or a disk was exchanged, the next backup is full and says why', async () => {
  const chain = new Chain(await libvirt.domain({ formats: ['qcow2', 'qcow2'] }));
  const { domain } = chain;
  await domain.scribble(random);
  await chain.backUp();
  await domain.kill();
  const machine = await domain.find();
  await expect(machine.backup()).rejects.toMatchObject({
    code: 'ERR_MACHINE_BUSY',
    message: expect.stringContaining('the domain is not running'),
  });
  await domain.boot();
  const { disks } = await chain.backUp();
  expect(disks.map(({ mode }) => mode)).toEqual(['full', 'full']);
  expect(disks[0].reason).toContain('cannot be used');
  await chain.expectOnlyTraces();
  await domain.exchange();
  const exchanged = await chain.backUp();
  expect(exchanged.disks[0]).toMatchObject({
    mode: 'full',
    reason: expect.stringContaining('the disk was exchanged since'),
  });
  await chain.expectOnlyTraces();
});

test('a guest is frozen through libvirt for the begin of the backup alone', async () => {
  const chain = new Chain(await libvirt.domain({ hasAgentChannel: true }));
  const { path, calls } = await libvirt.virshWithAgent();
  const { PATH } = process.env;
  onTestFinished(() => {
    process.env.PATH = PATH;
  });
  process.env.PATH = path;
  const { point } = await chain.backUp({ freeze: 'require' });
  expect(point.frozen).toBe(true);
  expect(calls()).toEqual(['freeze', 'begin', 'thaw']);
  await chain.expectOnlyTraces();
});

test('a backup that cannot begin leaves nothing, whatever step fails', async () => {
  const chain = new Chain(await libvirt.domain());
  const { domain } = chain;
  await chain.backUp();
  const machine = await domain.find();
  const base = chain.generation;
  await expect(machine.backup({ base, freeze: 'require' })).rejects.toMatchObject({
    code: 'ERR_AGENT_ABSENT',
  });
  const tried = await machine.backup({ base, freeze: 'try' });
  expect(tried.warnings).toEqual([expect.stringContaining('no guest agent is connected')]);
  await expect(machine.backup({ base })).rejects.toMatchObject({ code: 'ERR_MACHINE_BUSY' });
  await tried.fail();
  for (const step of ['fail before backup-begin', 'fail after backup-begin']) {
    await withFaults(step, async () => {
      await expect(machine.backup({ base }), step).rejects.toMatchObject({ code: 'ERR_LIBVIRT' });
    });
    await chain.expectOnlyTraces();
  }
  await domain.scribble(random);
  expect((await chain.backUp()).disks[0].mode).toBe('incremental');
  await chain.expectOnlyTraces();
});

test('a backup that fails after its begin leaves nothing, and the next is an increment', async () => {
  const chain = new Chain(await libvirt.domain());
  const { domain } = chain;
  await chain.backUp();
  const begin = async (options: BackupOptions = {}) => {
    await domain.scribble(random);
    return await (await domain.find()).backup({ base: chain.generation, ...options });
  };
  // The manifest cannot be written.
  const unrecorded = await begin();
  await expect(unrecorded.finish(() => Promise.reject(new Error('no room')))).rejects.toThrow(
    'no room',
  );
  await unrecorded.fail();
  await chain.expectOnlyTraces();
  // Somebody ends the job.
  const ended = await begin();
  await libvirt.virsh('domjobabort', domain.name);
  await expect.poll(() => ended.check().catch(({ code }) => code)).toBe('ERR_VIEW_LOST');
  await ended.fail();
  await chain.expectOnlyTraces();
  // The guest writes more than the scratch image may hold.
  await domain.write(0, { offset: 0, length: DOMAIN_DISK_BYTES, value: 9 });
  const outgrown = await begin({ scratchBytes: 2 ** 20 });
  await domain.write(0, { offset: 0, length: DOMAIN_DISK_BYTES, value: 7 });
  await expect.poll(() => outgrown.lost?.code).toBe('ERR_SCRATCH_FULL');
  await outgrown.fail();
  await chain.expectOnlyTraces();
  for (const step of ['domjobabort', 'checkpoint-delete']) {
    await withFaults(`fail before ${step}`, async () => {
      const failing = await begin();
      await failing.fail().catch(({ code }) => expect(code).toBe('ERR_MACHINE_LEFTOVERS'));
    });
    await (await domain.find()).recover({ generation: chain.generation! });
    await chain.expectOnlyTraces();
  }
  expect((await chain.backUp()).disks[0].mode).toBe('incremental');
  await chain.expectOnlyTraces();
});

test('a backup whose process is killed at any step is undone or completed by the next', async () => {
  const chain = new Chain(await libvirt.domain());
  const { domain } = chain;
  const store = join(libvirt.folder, 'store');
  mkdirSync(store);
  const manifest = (): { generation: string; images: { vda: string } } | undefined => {
    const path = join(store, 'manifest.json');
    return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : undefined;
  };
  const path = await libvirt.faultyVirsh();
  const runChild = async (place: string) => {
    const given = JSON.stringify({ machine: domain.options, store, size: DOMAIN_DISK_BYTES });
    const env = { ...process.env, PATH: path, VIRSH_FAULT: place };
    const child = spawn(process.execPath, [CHILD, given], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env,
    });
    const exited = once(child, 'exit');
    child.stdin.on('error', () => {});
    createInterface({ input: child.stdout }).on('line', (phase) => {
      if (phase === place) child.kill('SIGKILL');
      else child.stdin.write('\n');
    });
    return (await exited)[0];
  };
  await domain.scribble(random);
  expect(await runChild('nowhere')).toBe(0);
  const phases = ['begun', 'read', 'view ended', 'recorded'];
  const calls = ['backup-begin', 'domjobabort', 'checkpoint-delete'];
  const kills = calls.flatMap((call) => [`kill before ${call}`, `kill after ${call}`]);
  for (const place of [...phases, ...kills]) {
    const old = manifest()!.generation;
    await domain.scribble(random);
    const then = Buffer.from(domain.content[0]);
    expect(await runChild(place), place).toBe(null);
    const { generation, images } = manifest()!;
    if (generation !== old) expect(readFileSync(images.vda).equals(then), place).toBe(true);
    const { warnings } = await (await domain.find()).recover({ generation });
    expect(warnings).toEqual([]);
    expect(await domain.leftovers(), place).toEqual(domain.tracesOf(generation));
  }
  // Each image lies over those before it, so that a write that was lost at any place is missing here.
  const next = Buffer.from(domain.content[0]);
  expect(await runChild('nowhere')).toBe(0);
  expect(readFileSync(manifest()!.images.vda).equals(next)).toBe(true);
});

test('the command backs up a machine of libvirt, in full and as an increment', async () => {
  const domain = await libvirt.domain({ isOtherUser: true });
  const repository = join(libvirt.folder, 'command');
  const { name } = domain;
  const args = ['backup', '--libvirt', name, '--connect', libvirt.connect, repository];
  for (const [flags, said] of [
    [['--plan'], 'vda: all of it, because no earlier backup is given'],
    [[], `Restore point ${name}/1`],
    [['--plan'], 'vda: what has changed'],
    [[], `Restore point ${name}/2`],
  ] as const) {
    await domain.scribble(random);
    const { code, stdout, stderr } = await runCli([...args, ...flags]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toContain(said);
  }
  const refused = await runCli([...args, '--agent', '/x']);
  expect(refused.code).toBe(2);
  expect(refused.stderr).toContain('--agent does not go with --libvirt');
});

test('the command takes away what a killed backup has left in a machine of libvirt', async () => {
  const domain = await libvirt.domain();
  const repository = join(libvirt.folder, 'recovered');
  const which = ['--libvirt', domain.name, '--connect', libvirt.connect];
  const args = [...which, '--scratch', domain.folder, repository];
  expect(await runCli(['backup', ...args])).toMatchObject({ code: 0 });
  const traces = await domain.leftovers();
  await domain.write(0, { offset: 0, length: 512, value: 9 });
  const env = { PATH: await libvirt.faultyVirsh(), VIRSH_FAULT: 'kill after backup-begin' };
  expect(await runCli(['backup', ...args], { env })).toMatchObject({ code: null });
  expect(await domain.leftovers()).not.toEqual(traces);
  const { code, stdout, stderr } = await runCli(['recover', ...args]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout).toMatch(/^Took away what the backup lacuna-\w{8} had left\.\n/);
  expect(stdout).toMatch(/^vda: what has changed \(64 KiB dirty\), the checkpoint/m);
  expect(await domain.leftovers()).toEqual(traces);
});

test('libvirt that is not there, unknown domains and other hosts are told apart', async () => {
  const { folder } = libvirt;
  const nowhere = 'qemu:///system?socket=/nowhere';
  await expect(
    LibvirtMachine.find({ domain: 'x', connect: nowhere, folder }),
  ).rejects.toMatchObject({
    code: 'ERR_LIBVIRT',
    message: expect.stringContaining('/nowhere'),
  });
  const { connect } = libvirt;
  await expect(LibvirtMachine.find({ domain: 'nobody', connect, folder })).rejects.toMatchObject({
    code: 'ERR_LIBVIRT',
    message: expect.stringContaining("failed to get domain 'nobody'"),
  });
  const remote = { domain: 'x', connect: 'qemu+ssh://host/system', folder };
  await expect(LibvirtMachine.find(remote)).rejects.toThrow('run the backup on the host');
});

/** Does `work` with a virsh that fails once at a step. */
async function withFaults(step: string, work: () => Promise<void>): Promise<void> {
  const { PATH } = process.env;
  const restore = () => {
    process.env.PATH = PATH;
    delete process.env.VIRSH_FAULT;
  };
  onTestFinished(restore);
  process.env.PATH = await libvirt.faultyVirsh();
  process.env.VIRSH_FAULT = step;
  await work();
  restore();
}
