/** A machine of libvirt's to back up: a QEMU with one disk of 1 TiB and nothing that boots, and a guest that writes to it. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Monitor } from 'lacuna/qmp';
import { Libvirt } from '../../test/support/libvirt.js';
import { exec } from '../support/bench.js';
import {
  type LiveMachine,
  processorSecondsOf,
  type WritingGuest,
  writingGuest,
} from './machine.js';

const MIB = 2 ** 20;
const DEVICE = '/machine/peripheral/virtio-disk0/virtio-backend';

export class BenchDomain implements LiveMachine {
  readonly name = 'bench';
  readonly libvirt: Libvirt;
  readonly size: number;
  readonly #image: string;
  readonly #monitorPath: string;
  #monitor!: Monitor;

  static async start(folder: string, size: number): Promise<BenchDomain> {
    const domain = new BenchDomain(await Libvirt.start(), folder, size);
    try {
      await domain.#start(folder);
      return domain;
    } catch (error) {
      await domain.libvirt.remove();
      throw error;
    }
  }

  private constructor(libvirt: Libvirt, folder: string, size: number) {
    this.libvirt = libvirt;
    this.size = size;
    this.#image = join(folder, 'domain.qcow2');
    this.#monitorPath = join(libvirt.folder, 'bench.qmp');
  }

  async #start(folder: string): Promise<void> {
    await exec('qemu-img', ['create', '-q', '-f', 'qcow2', this.#image, String(this.size)]);
    const file = join(folder, 'domain.xml');
    writeFileSync(file, this.#xml());
    await this.libvirt.virsh('define', file);
    await this.libvirt.virsh('start', this.name);
    this.#monitor = await Monitor.connect({ path: this.#monitorPath });
  }

  /** With a monitor of our own beside libvirt's, through which the guest writes. */
  #xml(): string {
    return `<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>${this.name}</name>
      <memory unit='MiB'>16</memory><vcpu>1</vcpu>
      <os><type arch='x86_64' machine='pc'>hvm</type></os>
      <devices>
        <disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/>
          <source file='${this.#image}'/><target dev='vda' bus='virtio'/></disk>
        <controller type='usb' model='none'/><memballoon model='none'/>
      </devices>
      <qemu:commandline><qemu:arg value='-qmp'/><qemu:arg value='unix:${this.#monitorPath},server=on,wait=off'/></qemu:commandline>
    </domain>`;
  }

  processorSeconds(): number {
    return processorSecondsOf(this.libvirt.pidOf(this.name));
  }

  /** Of libvirtd, which works for who backs up. */
  daemonSeconds(): number {
    return processorSecondsOf(this.libvirt.pid);
  }

  async live(): Promise<string[]> {
    await this.#io('flush');
    return ['-U', '-f', 'qcow2', this.#image];
  }

  async fill(offsets: readonly number[], seed: number): Promise<void> {
    for (const [i, offset] of offsets.entries()) {
      await this.#io(`write -q -P ${1 + ((seed * 31 + i) % 255)} ${offset} ${MIB}`);
    }
    await this.#io('flush');
  }

  writing(offsets: readonly number[]): WritingGuest {
    return writingGuest(offsets, (offset, length) => this.#io(`write -q -P 1 ${offset} ${length}`));
  }

  /** Removes what counts from backups. */
  async forget(): Promise<void> {
    const names = await this.libvirt.virsh('checkpoint-list', this.name, '--name');
    for (const name of names.split('\n').map((line) => line.trim())) {
      if (name !== '') await this.libvirt.virsh('checkpoint-delete', this.name, name);
    }
  }

  async stop(): Promise<void> {
    await this.#monitor.close();
    await this.libvirt.remove();
  }

  /** Through the device, as the guest does: a node would bypass what a backup puts above it. */
  async #io(what: string): Promise<void> {
    const command = { 'command-line': `qemu-io -d ${DEVICE} "${what}"` };
    await this.#monitor.execute('human-monitor-command', command);
  }
}
