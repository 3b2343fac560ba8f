/** What backs the machine up: the command, and QEMU's own job. */
import { readdirSync, statSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { measured, ours } from '../copy/tools.js';
import { exec } from '../support/bench.js';
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
  newest(): string;
  /** Bytes that all its files take. */
  storedBytes(): number;
  clear(): Promise<void>;
}

export class Lacuna implements BackupContender {
  readonly name = 'lacuna backup';
  readonly #machine: BenchMachine;
  readonly #repository: string;

  constructor(machine: BenchMachine, folder: string) {
    this.#machine = machine;
    this.#repository = join(folder, 'repository');
  }

  full(): Promise<number> {
    return this.increment();
  }

  async increment(): Promise<number> {
    const nbd = `nbd+unix:///?socket=${this.#machine.nbd.path}`;
    const args = ['backup', '--qmp', this.#machine.monitorPath, '--nbd', nbd];
    args.push('--disk', 'node:vda', '--machine', 'bench', this.#repository);
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
