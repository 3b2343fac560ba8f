/** What backs a machine up: the command, QEMU's own job, and virtnbdbackup. */
import { readdirSync, statSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { measured, ours } from '../copy/tools.js';
import { exec } from '../support/bench.js';
import type { BenchDomain } from './domain.js';
import type { BenchMachine } from './machine.js';

const BITMAP = 'of-job';

/** One that makes full backups and increments. */
export interface BackupContender {
  readonly name: string;
  /** Of everything; seconds of processor time that the command took, without QEMU. */
  full(): Promise<number>;
  /** Of what has changed since the last backup; the same seconds. */
  increment(): Promise<number>;
  /** The image of the newest backup, with its backing files. */
  newest(): Promise<string> | string;
  /** Bytes that all its files take. */
  storedBytes(): number;
  clear(): Promise<void>;
}

export class Lacuna implements BackupContender {
  readonly name: string = 'lacuna backup';
  readonly #machine: readonly string[];
  readonly #repository: string;

  static of({ monitorPath, nbd }: BenchMachine, folder: string): Lacuna {
    const server = ['--nbd', `nbd+unix:///?socket=${nbd.path}`];
    return new Lacuna(['--qmp', monitorPath, ...server, '--disk', 'node:vda'], folder);
  }

  /** @param machine flags that name the machine */
  protected constructor(machine: readonly string[], folder: string) {
    this.#machine = machine;
    this.#repository = join(folder, 'repository');
  }

  full(): Promise<number> {
    return this.increment();
  }

  async increment(): Promise<number> {
    const args = ['backup', ...this.#machine, '--machine', 'bench', this.#repository];
    return (await measured(ours(...args))) / 1000;
  }

  newest(): string {
    const folder = join(this.#repository, 'machines/bench/disks/vda');
    return join(
      folder,
      readdirSync(folder)
        .filter((name) => name.endsWith('.qcow2'))
        .sort()
        .at(-1)!,
    );
  }

  storedBytes(): number {
    return allocated(this.#repository);
  }

  clear(): Promise<void> {
    return rm(this.#repository, { recursive: true, force: true });
  }
}

/** The command, of a machine of libvirt's. What libvirtd does for it counts as its own. */
export class LacunaLibvirt extends Lacuna {
  override readonly name = 'lacuna backup --libvirt';
  readonly #domain: BenchDomain;

  constructor(domain: BenchDomain, folder: string) {
    super(['--libvirt', domain.name, '--connect', domain.libvirt.connect], folder);
    this.#domain = domain;
  }

  override increment(): Promise<number> {
    return withDaemon(this.#domain, () => super.increment());
  }

  override async clear(): Promise<void> {
    await super.clear();
    await this.#domain.forget();
  }
}

/** Debian's virtnbdbackup, which writes streams; likewise. */
export class Virtnbdbackup implements BackupContender {
  readonly name = 'virtnbdbackup';
  readonly #domain: BenchDomain;
  readonly #output: string;
  readonly #restored: string;
  readonly #folder: string;

  constructor(domain: BenchDomain, folder: string) {
    this.#domain = domain;
    this.#folder = folder;
    this.#output = join(folder, 'streams');
    this.#restored = join(folder, 'restored');
  }

  full(): Promise<number> {
    return this.#run('full');
  }

  increment(): Promise<number> {
    return this.#run('inc');
  }

  /** What it restores. */
  async newest(): Promise<string> {
    await rm(this.#restored, { recursive: true, force: true });
    const socket = ['-f', join(this.#folder, 'restore.sock')];
    const args = ['-i', this.#output, '-o', this.#restored, '--noprogress', ...socket];
    await exec('virtnbdrestore', [...args, '-U', this.#domain.libvirt.connect]);
    const image = readdirSync(this.#restored).find((name) => name.endsWith('.qcow2'));
    return join(this.#restored, image!);
  }

  storedBytes(): number {
    return allocated(this.#output);
  }

  async clear(): Promise<void> {
    for (const path of [this.#output, this.#restored]) {
      await rm(path, { recursive: true, force: true });
    }
    await this.#domain.forget();
  }

  #run(level: 'full' | 'inc'): Promise<number> {
    const { name, libvirt } = this.#domain;
    const places = ['-o', this.#output, '-S', this.#folder, '-f', join(this.#folder, 'vnb.sock')];
    const args = ['-U', libvirt.connect, '-d', name, '-l', level, ...places, '--noprogress'];
    return withDaemon(this.#domain, async () => {
      return (await measured(['virtnbdbackup', ...args])) / 1000;
    });
  }
}

/** Seconds of processor time of a backup, with those of libvirtd meanwhile. */
async function withDaemon(domain: BenchDomain, work: () => Promise<number>): Promise<number> {
  const before = domain.daemonSeconds();
  return (await work()) + domain.daemonSeconds() - before;
}

/** `blockdev-backup` into qcow2 images that lie over each other, with a bitmap of its own. */
export class QemuJob implements BackupContender {
  readonly name = 'QEMU, blockdev-backup';
  readonly #machine: BenchMachine;
  readonly #folder: string;
  #count = 0;

  constructor(machine: BenchMachine, folder: string) {
    this.#machine = machine;
    this.#folder = join(folder, 'job');
  }

  async full(): Promise<number> {
    await exec('mkdir', ['-p', this.#folder]);
    await this.#image();
    const add = { type: 'block-dirty-bitmap-add', data: { node: 'vda', name: BITMAP } };
    await this.#job({ sync: 'full' }, [add]);
    return 0;
  }

  async increment(): Promise<number> {
    await this.#image(['-b', this.newest(), '-F', 'qcow2']);
    await this.#job({ sync: 'bitmap', bitmap: BITMAP, 'bitmap-mode': 'on-success' }, []);
    return 0;
  }

  newest(): string {
    return join(this.#folder, `${this.#count}.qcow2`);
  }

  storedBytes(): number {
    return allocated(this.#folder);
  }

  async clear(): Promise<void> {
    await rm(this.#folder, { recursive: true, force: true });
    const remove = { node: 'vda', name: BITMAP };
    await this.#machine.monitor.execute('block-dirty-bitmap-remove', remove).catch(() => {});
    this.#count = 0;
  }

  async #image(flags: readonly string[] = []): Promise<void> {
    const path = join(this.#folder, `${this.#count + 1}.qcow2`);
    const size = String(this.#machine.size);
    await exec('qemu-img', ['create', '-q', '-f', 'qcow2', ...flags, path, size]);
    this.#count++;
  }

  async #job(how: object, before: object[]): Promise<void> {
    const { monitor } = this.#machine;
    const events = monitor.events(['JOB_STATUS_CHANGE']);
    // Waiting for an event keeps no process alive.
    const alive = setInterval(() => {}, 1000);
    await monitor.execute('blockdev-add', {
      ...{ driver: 'qcow2', 'node-name': 'target' },
      file: { driver: 'file', filename: this.newest() },
    });
    const data = { 'job-id': 'job', device: 'vda', target: 'target', ...how };
    await monitor.execute('transaction', {
      actions: [...before, { type: 'blockdev-backup', data }],
    });
    for await (const { data: told } of events) {
      if (told.id === 'job' && told.status === 'concluded') break;
    }
    clearInterval(alive);
    await monitor.execute('blockdev-del', { 'node-name': 'target' });
  }
}

function allocated(folder: string): number {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => statSync(join(folder, name)).blocks * 512)
    .reduce((sum, bytes) => sum + bytes, 0);
}
