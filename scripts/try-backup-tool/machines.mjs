// Machines without an operating system: the script that tries a backup tool is their guest, and writes to their disks.
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { chmod } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Monitor } from 'lacuna/qmp';
import { QmpProxy } from './proxy.mjs';

export const DISK_BYTES = 32 * 2 ** 20;
const START_MS = 120_000;
const PAUSE_MS = 20;

export async function run(program, ...args) {
  const { stdout } = await promisify(execFile)(program, args, { maxBuffer: 2 ** 28 });
  return stdout;
}

async function makeFolder(disks) {
  const folder = mkdtempSync(join(tmpdir(), 'try-'));
  // The QEMU of libvirt is another user.
  await chmod(folder, 0o711);
  mkdirSync(join(folder, 'store'));
  for (const disk of disks) {
    await run('qemu-img', 'create', '-q', '-f', 'qcow2', imageIn(folder, disk), `${DISK_BYTES}`);
  }
  return folder;
}

function imageIn(folder, disk) {
  return join(folder, `${disk}.qcow2`);
}

function tellDevice(id, what) {
  return `qemu-io -d /machine/peripheral/${id}/virtio-backend "${what}"`;
}

/** libvirt counts disks by the letters of their targets: vda is 0, vdaa is 26. */
function indexOf(disk) {
  const digits = [...disk.slice(2)].map((letter) => letter.charCodeAt(0) - 96);
  return digits.reduce((index, digit) => 26 * index + digit, 0) - 1;
}

/** A QEMU of its own; the tool reaches it through a proxy, which stops before each command. */
export class QemuMachine {
  static async start(disks) {
    const machine = new QemuMachine();
    machine.folder = await makeFolder(disks);
    machine.disks = disks;
    const [first, second] = ['qmp-own', 'qmp-tool'].map((name) => join(machine.folder, name));
    const drives = disks.flatMap((disk) => [
      '-blockdev',
      `qcow2,node-name=${disk},discard=unmap,file.driver=file,file.discard=unmap,file.filename=${imageIn(machine.folder, disk)}`,
      ...['-device', `virtio-blk-pci,id=${disk},drive=${disk}`],
    ]);
    machine.child = spawn(
      'qemu-system-x86_64',
      [
        ...['-name', 'try', '-nodefaults', '-no-user-config', '-display', 'none', '-S'],
        ...['-accel', 'tcg', '-m', '16'],
        ...[first, second].flatMap((path) => ['-qmp', `unix:${path},server=on,wait=off`]),
        ...drives,
      ],
      { stdio: ['ignore', 'ignore', 'inherit'] },
    );
    const end = Date.now() + START_MS;
    while (machine.monitor === undefined) {
      if (machine.child.exitCode !== null || Date.now() > end)
        throw new Error('QEMU does not start');
      machine.monitor = await Monitor.connect({ path: first }).catch(() => sleep(PAUSE_MS));
    }
    const path = join(machine.folder, 'qmp');
    machine.proxy = await QmpProxy.start(path, second);
    machine.places = { qmp: path };
    return machine;
  }

  image(disk) {
    return imageIn(this.folder, disk);
  }

  async io(disk, what) {
    const command = tellDevice(disk, what);
    await this.monitor.execute('human-monitor-command', { 'command-line': command });
  }

  /** Does `work` while `write` is called before each command of the tool. */
  async during(work, write) {
    this.proxy.before = write;
    try {
      return await work();
    } finally {
      this.proxy.before = async () => {};
    }
  }

  /** Ends it, so that its images hold everything. */
  async end() {
    if (this.child.exitCode !== null) return;
    const exited = once(this.child, 'exit');
    this.proxy.stop();
    await this.monitor.execute('quit').catch(() => this.child.kill());
    await this.monitor.close();
    await exited;
  }

  async remove() {
    await this.end();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A domain of a libvirt that is there. Writes fall wherever they happen to, as libvirt has the monitor. */
export class LibvirtMachine {
  static async start(disks, connect) {
    const machine = new LibvirtMachine();
    machine.folder = await makeFolder(disks);
    machine.disks = disks;
    machine.connect = connect;
    machine.name = `try-${process.pid}-${Date.now().toString(36)}`;
    const definition = join(machine.folder, 'domain.xml');
    writeFileSync(definition, machine.#xml());
    await machine.virsh('define', definition);
    await machine.virsh('start', machine.name, '--paused');
    machine.places = { uri: connect, domain: machine.name };
    return machine;
  }

  image(disk) {
    return imageIn(this.folder, disk);
  }

  async io(disk, what) {
    const id = `virtio-disk${indexOf(disk)}`;
    await this.virsh('qemu-monitor-command', this.name, '--hmp', tellDevice(id, what));
  }

  async during(work, write) {
    let isOver = false;
    const writing = (async () => {
      while (!isOver) await write('a moment');
    })();
    try {
      return await work();
    } finally {
      isOver = true;
      await writing;
    }
  }

  async end() {
    await this.virsh('destroy', this.name, '--graceful');
  }

  async remove() {
    await this.virsh('destroy', this.name).catch(() => {});
    await this.virsh('undefine', this.name, '--checkpoints-metadata').catch(() => {});
    rmSync(this.folder, { recursive: true, force: true });
  }

  virsh(...args) {
    return run('virsh', '-q', '-c', this.connect, ...args);
  }

  #xml() {
    const disks = this.disks.map(
      (disk) => `<disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/>
        <source file='${this.image(disk)}'/><target dev='${disk}' bus='virtio'/></disk>`,
    );
    return `<domain type='qemu'><name>${this.name}</name><memory unit='MiB'>16</memory><vcpu>1</vcpu>
      <os><type arch='x86_64' machine='pc'>hvm</type></os>
      <devices>${disks.join('')}<controller type='usb' model='none'/><memballoon model='none'/></devices>
      </domain>`;
  }
}
