// Backs up a real guest: a small Linux under software emulation that writes numbered records to an ext4 file system and
// syncs each. It is frozen through its agent, backed up in full and three times as an increment while it writes, and each
// restore point is restored with qemu-img and looked at: the file system must be clean, and the records a prefix without a gap.
//
//     npm run build && node scripts/real-guest.mjs FOLDER
//
// It needs Debian's apt-get, dpkg, cpio, mke2fs, e2fsck, debugfs, qemu-system-x86_64, qemu-ga and 300 MB, and installs
// nothing: the kernel and busybox are unpacked in FOLDER.
import { execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { backupMachine, Machine } from 'lacuna/qemu';
import { Repository } from 'lacuna/repository';

const MODULES = ['virtio_pci', 'virtio_pci_legacy_dev', 'virtio_pci_modern_dev'].concat([
  ...['virtio', 'virtio_ring', 'virtio_blk', 'virtio_console'],
]);
const APPLETS = [
  'sh',
  'mount',
  'mdev',
  'insmod',
  'sync',
  'echo',
  'sleep',
  'cat',
  'mkdir',
  'printf',
];
const BOOT_MS = 300_000;
const POINTS = 4;

const INIT = `#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for pass in 1 2 3; do for m in /modules/*.ko; do insmod $m 2>/dev/null; done; done
mdev -s
mount -t ext4 /dev/vda /mnt || echo MOUNT FAILED
mkdir -p /mnt/d
while true; do P=$(echo /dev/vport*p1); [ -e "$P" ] && break; sleep 1; mdev -s; done
qemu-ga -m virtio-serial -p $P -t /tmp -f /tmp/qemu-ga.pid &
echo GUEST READY
n=0
while true; do
  n=$((n+1))
  printf '%08d\\n' $n >> /mnt/records
  [ $((n % 50)) = 0 ] && cat /bin/busybox > /mnt/d/$((n % 7))
  sync
done
`;

function run(program, ...args) {
  return execFileSync(program, args, { maxBuffer: 2 ** 28, stdio: ['ignore', 'pipe', 'ignore'] });
}

/** Unpacks a kernel and busybox, and makes an initial file system with the agent of this host. */
function makeGuest(folder) {
  const [packages, root] = [join(folder, 'packages'), join(folder, 'root')];
  mkdirSync(packages, { recursive: true });
  const depends = run('apt-cache', 'depends', 'linux-image-cloud-amd64').toString();
  const kernel = /Depends: (linux-image-\S+)/.exec(depends)[1];
  const stdio = ['ignore', 'ignore', 'inherit'];
  execFileSync('apt-get', ['download', kernel, 'busybox-static'], { cwd: packages, stdio });
  const unpacked = join(folder, 'unpacked');
  for (const name of readdirSync(packages)) run('dpkg', '-x', join(packages, name), unpacked);
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
  const boot = join(unpacked, 'boot');
  cpSync(
    join(
      boot,
      readdirSync(boot).find((name) => name.startsWith('vmlinuz')),
    ),
    join(folder, 'vmlinuz'),
  );
}

function startGuest(folder) {
  const raw = join(folder, 'disk.raw');
  run('truncate', '-s', '64M', raw);
  run('/usr/sbin/mke2fs', '-q', '-t', 'ext4', '-F', raw);
  run('qemu-img', 'convert', '-O', 'qcow2', raw, join(folder, 'disk.qcow2'));
  return spawn('qemu-system-x86_64', [
    ...['-accel', 'tcg', '-m', '256', '-nodefaults', '-no-user-config', '-display', 'none'],
    ...['-serial', `file:${folder}/console.log`],
    ...['-kernel', `${folder}/vmlinuz`, '-initrd', `${folder}/initrd.gz`],
    ...['-append', 'console=ttyS0 quiet panic=1'],
    ...['-blockdev', `qcow2,node-name=disk,file.driver=file,file.filename=${folder}/disk.qcow2`],
    ...['-device', 'virtio-blk-pci,drive=disk,id=vda', '-device', 'virtio-serial'],
    ...['-chardev', `socket,id=agent,path=${folder}/agent.sock,server=on,wait=off`],
    ...['-device', 'virtserialport,chardev=agent,name=org.qemu.guest_agent.0'],
    ...['-qmp', `unix:${folder}/qmp.sock,server=on,wait=off`],
  ]);
}

async function booted(folder) {
  for (const end = Date.now() + BOOT_MS; Date.now() < end; await sleep(500)) {
    const console = join(folder, 'console.log');
    if (existsSync(console) && readFileSync(console, 'utf8').includes('GUEST READY')) return;
  }
  throw new Error(`the guest does not start: see ${folder}/console.log`);
}

/** What is wrong with a restored disk; nothing where it is right. */
function faultOf(raw, recordsBefore) {
  try {
    run('/usr/sbin/e2fsck', '-fn', raw);
  } catch (error) {
    return `its file system is damaged: ${error.stdout}`;
  }
  const records = run('/usr/sbin/debugfs', '-R', 'cat records', raw)
    .toString()
    .split('\n')
    .slice(0, -1);
  const gap = records.findIndex((record, index) => Number(record) !== index + 1);
  if (gap !== -1) return `record ${gap + 1} is ${records[gap]}`;
  return records.length > recordsBefore
    ? records.length
    : 'it has no newer records than the one before';
}

async function main(folder) {
  if (!existsSync(join(folder, 'initrd.gz'))) makeGuest(folder);
  const guest = startGuest(folder);
  try {
    await booted(folder);
    mkdirSync(join(folder, 'sessions'), { recursive: true });
    const machine = await Machine.connect({
      ...{
        monitor: { path: join(folder, 'qmp.sock') },
        agent: { path: join(folder, 'agent.sock') },
      },
      folder: join(folder, 'sessions'),
    });
    const repository = Repository.open(join(folder, `repository-${process.pid}`), { create: true });
    let records = 0;
    for (let n = 0; n < POINTS; n++) {
      const { point, disks } = await backupMachine(repository, machine, {
        machine: 'guest',
        freeze: 'require',
      });
      const file = join(repository.path, 'machines/guest/disks/vda', point.disks[0].file.name);
      run('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', file, join(folder, 'restored.raw'));
      const found = faultOf(join(folder, 'restored.raw'), records);
      if (typeof found === 'string') throw new Error(`restore point ${point.number}: ${found}`);
      records = found;
      console.log(
        `${point.number}: ${disks[0].mode}, ${disks[0].movedBytes} bytes, ${records} records, clean`,
      );
      await sleep(2000);
    }
    await machine.close();
  } finally {
    guest.kill();
  }
}

if (process.argv[2] === undefined) {
  console.error('usage: node scripts/real-guest.mjs FOLDER');
  process.exitCode = 2;
} else await main(resolve(process.argv[2]));
