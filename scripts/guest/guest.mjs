/**
 * A real guest, small and without a network: Debian's kernel, busybox and this host's guest agent, under software emulation.
 * It mounts its disk, says on its console how many numbered records that has ("RECORDS 17", or "GAP" where one is missing),
 * and goes on writing records, each of which it syncs.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const MODULES = ['virtio_pci', 'virtio_pci_legacy_dev', 'virtio_pci_modern_dev'].concat([
  ...['virtio', 'virtio_ring', 'virtio_blk', 'virtio_console'],
]);
const APPLETS = ['sh', 'mount', 'mdev', 'insmod', 'sync', 'echo', 'sleep', 'cat', 'mkdir'].concat([
  ...['printf', 'touch', 'awk'],
]);
/** On a busy machine; it takes about 15 seconds where nothing else runs. */
const BOOT_MS = 300_000;
const LOOK_MS = 500;

const INIT = `#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for pass in 1 2 3; do for m in /modules/*.ko; do insmod $m 2>/dev/null; done; done
mdev -s
mount -t ext4 /dev/vda /mnt || { echo MOUNT FAILED; while true; do sleep 60; done; }
mkdir -p /mnt/d
touch /mnt/records
awk '$1 != sprintf("%08d", NR) { gap = 1 } END { print gap ? "GAP" : "RECORDS " NR }' /mnt/records
n=$(awk 'END { print NR }' /mnt/records)
while true; do P=$(echo /dev/vport*p1); [ -e "$P" ] && break; sleep 1; mdev -s; done
qemu-ga -m virtio-serial -p $P -t /tmp -f /tmp/qemu-ga.pid &
echo GUEST READY
while true; do
  n=$((n+1))
  printf '%08d\\n' $n >> /mnt/records
  [ $((n % 50)) = 0 ] && cat /bin/busybox > /mnt/d/$((n % 7)) && echo WRITTEN $n
  sync
done
`;

/** Runs a program, and gives what it prints. */
export function run(program, ...args) {
  return execFileSync(program, args, { maxBuffer: 2 ** 28, stdio: ['ignore', 'pipe', 'ignore'] });
}

/** Makes what a guest boots from, in a folder. The packages stay there, so that the next time takes no download. */
export function makeGuest(folder) {
  const [root, unpacked] = [join(folder, 'root'), join(folder, 'unpacked')];
  if (!existsSync(join(folder, 'vmlinuz'))) unpackKernel(folder, unpacked);
  rmSync(root, { recursive: true, force: true });
  for (const name of ['bin', 'proc', 'sys', 'dev', 'mnt', 'tmp', 'modules', 'run', 'var/run']) {
    mkdirSync(join(root, name), { recursive: true });
  }
  cpSync(join(unpacked, 'bin/busybox'), join(root, 'bin/busybox'));
  for (const name of APPLETS) symlinkSync('busybox', join(root, 'bin', name));
  const agent = run('sh', '-c', 'PATH=$PATH:/usr/sbin command -v qemu-ga').toString().trim();
  cpSync(agent, join(root, 'bin/qemu-ga'));
  for (const [library] of run('ldd', agent).toString().matchAll(/\/\S+/g)) {
    mkdirSync(join(root, dirname(library)), { recursive: true });
    cpSync(library, join(root, library), { dereference: true });
  }
  for (const name of MODULES) {
    const found = run('find', join(unpacked, 'lib/modules'), '-name', `${name}.ko`).toString();
    cpSync(found.split('\n')[0], join(root, 'modules', `${name}.ko`));
  }
  writeFileSync(join(root, 'init'), INIT);
  chmodSync(join(root, 'init'), 0o755);
  const initrd = join(folder, 'initrd.gz');
  run('sh', '-c', `cd '${root}' && find . | cpio -o -H newc | gzip -1 > '${initrd}'`);
}

function unpackKernel(folder, unpacked) {
  const packages = join(folder, 'packages');
  mkdirSync(packages, { recursive: true });
  const depends = run('apt-cache', 'depends', 'linux-image-cloud-amd64').toString();
  const kernel = /Depends: (linux-image-\S+)/.exec(depends)[1];
  const stdio = ['ignore', 'ignore', 'inherit'];
  execFileSync('apt-get', ['download', kernel, 'busybox-static'], { cwd: packages, stdio });
  for (const name of readdirSync(packages)) run('dpkg', '-x', join(packages, name), unpacked);
  const boot = join(unpacked, 'boot');
  const name = readdirSync(boot).find((one) => one.startsWith('vmlinuz'));
  cpSync(join(boot, name), join(folder, 'vmlinuz'));
}

/** Makes an empty disk with a file system. */
export function makeDisk(folder) {
  const [raw, disk] = [join(folder, 'disk.raw'), join(folder, 'disk.qcow2')];
  rmSync(raw, { force: true });
  run('truncate', '-s', '64M', raw);
  run('/usr/sbin/mke2fs', '-q', '-t', 'ext4', '-F', raw);
  run('qemu-img', 'convert', '-O', 'qcow2', raw, disk);
  return disk;
}

/** What a guest says on its console, which is a file. */
class Console {
  constructor(path) {
    this.path = path;
    rmSync(path, { force: true });
  }

  /** Waits until the guest writes records; returns how many it found on its disk. */
  async booted() {
    await this.#until(/GUEST READY/, () => true);
    return await this.#until(/RECORDS (\d+)/, ([found]) => found);
  }

  /** Waits until its disk has so many records; it tells of every fiftieth. */
  async wrote(least) {
    await this.#until(/WRITTEN (\d+)/, (counts) => counts.at(-1) >= least);
  }

  /** Waits until its console has shown what is asked for; the numbers that it has shown until then are told. */
  async #until(pattern, isEnough) {
    for (const end = Date.now() + BOOT_MS; Date.now() < end; await sleep(LOOK_MS)) {
      const text = existsSync(this.path) ? readFileSync(this.path, 'utf8') : '';
      const counts = [...text.matchAll(new RegExp(pattern, 'g'))].map(([, count]) => Number(count));
      const enough = counts.length > 0 && isEnough(counts);
      if (enough !== false) return enough;
      if (/MOUNT FAILED|GAP|Kernel panic/.test(text) || !this.isRunning()) break;
    }
    throw new Error(`the guest does not say ${pattern.source}: see ${this.path}`);
  }
}

/** A guest that runs. */
export class Guest extends Console {
  #process;

  /**
   * Starts one.
   *
   * @param folder that makeGuest has filled; its sockets are `qmp.sock` and `agent.sock` in it
   * @param drive the options of QEMU's -drive, without its id
   * @param how `name` is a part of the names of its sockets; `more` are other arguments of QEMU; `accel` is how it is emulated
   */
  constructor(folder, drive, { name = '', more = [], accel = 'tcg' } = {}) {
    super(join(folder, `console${name}.log`));
    const [agent, qmp] = [join(folder, `agent${name}.sock`), join(folder, `qmp${name}.sock`)];
    for (const path of [agent, qmp]) rmSync(path, { force: true });
    const args = [
      ...['-accel', accel, '-m', '256', '-nodefaults', '-no-user-config', '-display', 'none'],
      ...['-serial', `file:${this.path}`],
      ...['-kernel', join(folder, 'vmlinuz'), '-initrd', join(folder, 'initrd.gz')],
      // A kernel that waits for its timer on a busy host gives up.
      ...['-append', 'console=ttyS0 quiet panic=1 no_timer_check'],
      ...['-drive', `if=none,id=disk,${drive}`],
      ...['-device', 'virtio-blk-pci,drive=disk,id=vda', '-device', 'virtio-serial'],
      ...['-chardev', `socket,id=agent,path=${agent},server=on,wait=off`],
      ...['-device', 'virtserialport,chardev=agent,name=org.qemu.guest_agent.0'],
      ...['-qmp', `unix:${qmp},server=on,wait=off`, ...more],
    ];
    const stdio = ['ignore', 'ignore', 'inherit'];
    this.#process = spawn('qemu-system-x86_64', args, { stdio });
  }

  isRunning() {
    return this.#process.exitCode === null;
  }

  /** Ends it at once, as a power cut would. */
  async kill() {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const ended = once(this.#process, 'exit');
    this.#process.kill('SIGKILL');
    await ended;
  }
}

/** The same guest as a domain of libvirt's, for as long as it runs. */
export class DomainGuest extends Console {
  name = `lacuna-guest-${process.pid}`;
  #uri;

  /**
   * Starts one.
   *
   * @param folder that makeGuest has filled, and that the user of libvirt's QEMU can enter
   * @param disk its qcow2 image
   */
  constructor(folder, disk, uri) {
    super(join(folder, 'console.log'));
    this.#uri = uri;
    const file = join(folder, 'domain.xml');
    writeFileSync(
      file,
      `<domain type='qemu'><name>${this.name}</name><memory unit='MiB'>256</memory><vcpu>1</vcpu>
      <os><type arch='x86_64' machine='pc'>hvm</type><kernel>${join(folder, 'vmlinuz')}</kernel>
        <initrd>${join(folder, 'initrd.gz')}</initrd><cmdline>console=ttyS0 quiet panic=1</cmdline></os>
      <devices>
        <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
          <source file='${disk}'/><target dev='vda' bus='virtio'/></disk>
        <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
        <serial type='file'><source path='${this.path}'/></serial>
        <controller type='usb' model='none'/><memballoon model='none'/>
      </devices></domain>`,
    );
    this.#virsh('define', file);
    this.#virsh('start', this.name);
  }

  /** libvirt has its process: that it has ended is known when it says nothing more. */
  isRunning() {
    return true;
  }

  async kill() {
    this.#virsh('destroy', this.name);
    this.#virsh('undefine', this.name, '--checkpoints-metadata');
  }

  #virsh(...args) {
    const stdio = ['ignore', 'pipe', 'inherit'];
    execFileSync('virsh', ['-q', '-c', this.#uri, ...args], { stdio });
  }
}

/**
 * Looks at the file system and the records of a raw disk.
 *
 * @returns how many records there are
 * @throws Error where the file system is damaged, or a record is missing.
 */
export function recordsOf(raw) {
  try {
    run('/usr/sbin/e2fsck', '-fn', raw);
  } catch (error) {
    throw new Error(`its file system is damaged: ${error.stdout}`);
  }
  const text = run('/usr/sbin/debugfs', '-R', 'cat records', raw).toString();
  const records = text.split('\n').slice(0, -1);
  const gap = records.findIndex((record, index) => Number(record) !== index + 1);
  if (gap !== -1) throw new Error(`record ${gap + 1} is ${records[gap]}`);
  return records.length;
}
