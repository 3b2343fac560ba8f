/** fio writes through four exports of a daemon, and looks whether all is there, while jobs of all kinds come and go. */
import { createQcow2, createRawFile } from 'lacuna';
import { Daemon } from 'lacuna/daemon';
import { Random } from 'lacuna/testing';
import { expect, onTestFinished, test } from 'vitest';
import { firstSeed, runsOr } from '../../support/long-run.js';
import { finish } from '../../support/nbd-server.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

workInNewFolders();

const SIZE = 4 << 20;
const ROUNDS = runsOr(6, 120);
/** In bytes: fio writes for as long as jobs come and go. */
const WRITTEN = Math.ceil(ROUNDS / 3) * SIZE;

/** A disk behind an export. */
interface Disk {
  readonly name: string;
  /** The node that the export leads to, and the file that it is in. */
  node: string;
  file: string;
  isImage: boolean;
}

class Fire {
  readonly daemon: Daemon;
  readonly failures: string[] = [];
  readonly random = new Random(firstSeed());
  #made = 0;
  #wake: () => void = () => {};

  constructor() {
    this.daemon = new Daemon({
      onEvent: (event, data) => {
        const { error } = { ...data } as { error?: string };
        if (error !== undefined && event !== 'JOB_END_REFUSED') {
          this.failures.push(`${event} ${JSON.stringify(data)}`);
        }
        this.#wake();
      },
    });
  }

  run(name: string, args: object = {}): Promise<unknown> {
    return this.daemon.execute(name, args);
  }

  /** Takes a copy of a disk, and lets it go again. */
  async backup(disk: Disk): Promise<void> {
    const target = await this.#raw();
    await this.run('blockdev-backup', {
      ...{ 'job-id': 'job', device: disk.node, target: target.node, sync: 'full' },
    });
    await this.#gone();
    await this.run('blockdev-del', { 'node-name': target.node });
  }

  /** Lets a copy come into the place of a disk, or not. */
  async mirror(disk: Disk, isCompleted: boolean): Promise<void> {
    const target = await this.#raw();
    await this.run('blockdev-mirror', {
      ...{ 'job-id': 'job', device: disk.node, target: target.node, sync: 'full' },
      'copy-mode': this.random.pick(['background', 'write-blocking']),
    });
    await this.#ready();
    if (isCompleted) await this.#completed();
    else await this.run('block-job-cancel', { device: 'job', force: true });
    await this.#gone();
    const left = isCompleted ? disk.node : target.node;
    if (isCompleted) Object.assign(disk, target, { isImage: false });
    await this.run('blockdev-del', { 'node-name': left });
  }

  /** Puts a new layer on an image, and what is in it back into the image. */
  async layer(disk: Disk): Promise<void> {
    const name = `n${++this.#made}`;
    const filename = `${process.cwd()}/${name}.qcow2`;
    const made = { driver: 'file', filename };
    await this.#create({ ...made, size: 0 });
    const backing = { 'backing-file': disk.file, 'backing-fmt': 'qcow2' };
    await this.#create({ driver: 'qcow2', file: made, size: SIZE, ...backing });
    await this.run('blockdev-add', {
      ...{ driver: 'qcow2', 'node-name': name, file: made, backing: null },
    });
    await this.run('blockdev-snapshot', { node: disk.node, overlay: name });
    await this.run('block-commit', { 'job-id': 'job', device: name, 'base-node': disk.node });
    await this.#ready();
    await this.#completed();
    await this.#gone();
  }

  async #raw(): Promise<Pick<Disk, 'node' | 'file'>> {
    const node = `n${++this.#made}`;
    const file = `${process.cwd()}/${node}.raw`;
    await this.#create({ driver: 'file', filename: file, size: SIZE });
    await this.run('blockdev-add', { driver: 'file', 'node-name': node, filename: file });
    return { node, file };
  }

  async #create(options: object): Promise<void> {
    await this.run('blockdev-create', { 'job-id': 'create', options });
    await this.#until(async () => (await this.#job('create'))?.status === 'concluded');
    const job = await this.#job('create');
    if (job?.error !== undefined) throw new Error(job.error);
    await this.run('job-dismiss', { id: 'create' });
  }

  /** What keeps a job from its end may be over at the next attempt. */
  async #completed(): Promise<void> {
    await this.run('job-complete', { id: 'job' });
  }

  async #job(id: string) {
    const jobs = await this.run('query-jobs');
    return (jobs as { id: string; status: string; error?: string }[]).find((one) => one.id === id);
  }

  #ready(): Promise<void> {
    return this.#until(async () => (await this.#job('job'))?.status === 'ready');
  }

  #gone(): Promise<void> {
    return this.#until(async () => (await this.#job('job')) === undefined);
  }

  async #until(isSo: () => Promise<boolean>): Promise<void> {
    for (;;) {
      const news = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      if (await isSo()) return;
      expect(this.failures).toEqual([]);
      await news;
    }
  }
}

async function setUp(): Promise<{ fire: Fire; disks: Disk[] }> {
  const fire = new Fire();
  onTestFinished(() => fire.daemon.close());
  await createRawFile('a.raw', SIZE);
  await createQcow2('b.qcow2', { size: SIZE });
  await createRawFile('base.raw', SIZE);
  await createQcow2('c.qcow2', { size: SIZE, backing: { filename: 'base.raw', format: 'raw' } });
  await createRawFile('d.raw', SIZE);
  const file = (filename: string) => ({ driver: 'file', filename: `${process.cwd()}/${filename}` });
  await fire.daemon.apply({
    object: [{ 'qom-type': 'throttle-group', id: 'g', limits: { 'iops-total': 1_000_000 } }],
    blockdev: [
      { ...file('a.raw'), 'node-name': 'a' },
      { driver: 'qcow2', 'node-name': 'b', file: file('b.qcow2') },
      { driver: 'qcow2', 'node-name': 'c', file: file('c.qcow2') },
      { driver: 'throttle', 'node-name': 'd', 'throttle-group': 'g', file: file('d.raw') },
    ],
    'nbd-server': { addr: { type: 'unix', path: `${process.cwd()}/nbd` } },
    export: ['a', 'b', 'c', 'd'].map((name) => ({
      ...{ type: 'nbd', id: name, 'node-name': name, name, writable: true },
    })),
  });
  const disks = ['a.raw', 'b.qcow2', 'c.qcow2', 'd.raw'].map((name) => ({
    ...{ name: name[0], node: name[0], file: `${process.cwd()}/${name}` },
    isImage: name.endsWith('qcow2'),
  }));
  return { fire, disks };
}

test('fio finds all that it wrote through four exports, while jobs come and go', async () => {
  const { fire, disks } = await setUp();
  const fio = ({ name }: Disk, more: string) =>
    finish('fio', [
      ...[
        `--name=${name}`,
        '--ioengine=nbd',
        `--uri=nbd+unix:///${name}?socket=${process.cwd()}/nbd`,
      ],
      ...['--rw=randwrite', '--bsrange=512-64k', '--iodepth=8', `--size=${SIZE}`],
      ...['--verify=crc32c', '--verify_fatal=1', `--io_size=${WRITTEN}`, more],
    ]);
  const written = disks.map((disk) => fio(disk, '--do_verify=1'));
  for (let round = 0; round < ROUNDS; round++) {
    const disk = disks[round % disks.length];
    const kinds = ['backup', 'complete', 'cancel', ...(disk.isImage ? ['layer', 'layer'] : [])];
    const kind = fire.random.pick(kinds);
    if (kind === 'backup') await fire.backup(disk);
    else if (kind === 'layer') await fire.layer(disk);
    else await fire.mirror(disk, kind === 'complete');
  }
  const again = [...(await Promise.all(written))];
  for (const disk of disks) again.push(await fio(disk, '--verify_only'));
  for (const { stdout, stderr } of again) expect(stdout + stderr).toMatch(/err= 0/);
  expect(fire.failures).toEqual([]);
  await fire.daemon.close();
});
