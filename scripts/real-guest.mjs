// Backs up a real guest: a small Linux under software emulation that writes numbered records to an ext4 file system and
// syncs each. It is frozen through its agent, backed up in full and three times as an increment while it writes, and each
// restore point is restored with qemu-img and looked at: the file system must be clean, and the records a prefix without a gap.
// Then guests boot from the newest restore point while `lacuna serve` serves it: read-only with a snapshot of QEMU, with an
// overlay that is thrown away, and twice with one that is kept. Each must find all records, and what it writes must be where
// the mode says.
//
//     npm run build && node scripts/real-guest.mjs FOLDER
//     npm run build && node scripts/real-guest.mjs FOLDER --libvirt qemu:///system
//
// The second backs the guest up as a domain that it defines in libvirt, which freezes it. The user of libvirt's QEMU must be able
// to enter FOLDER.
//
// It needs Debian's apt-get, dpkg, cpio, mke2fs, e2fsck, debugfs, qemu-system-x86_64, qemu-ga and 300 MB, and installs
// nothing: the kernel and busybox are unpacked in FOLDER. It takes about three minutes.
import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { backupMachine, LibvirtMachine, Machine } from 'lacuna/qemu';
import { Repository } from 'lacuna/repository';
import { bootFromPoint } from './guest/boot-from-point.mjs';
import { DomainGuest, Guest, makeDisk, makeGuest, recordsOf, run } from './guest/guest.mjs';

const POINTS = 4;
/** Records that a guest writes between two backups. */
const MORE_RECORDS = 50;

/** Backs a guest up while it writes; returns the repository, and how many records its newest point has. */
async function backUpLive(folder, uri) {
  const disk = makeDisk(folder);
  const guest =
    uri === undefined
      ? new Guest(folder, `format=qcow2,file=${disk},node-name=disk0`)
      : new DomainGuest(folder, disk, uri);
  try {
    await guest.booted();
    const sessions = join(folder, 'sessions');
    mkdirSync(sessions, { recursive: true, mode: 0o711 });
    const machine = await connected(folder, sessions, uri && { domain: guest.name, connect: uri });
    const repository = Repository.open(join(folder, `repository-${process.pid}`), { create: true });
    const raw = join(folder, 'restored.raw');
    let records = 0;
    for (let n = 0; n < POINTS; n++) {
      await guest.wrote(records + MORE_RECORDS);
      const options = { machine: 'guest', freeze: 'require' };
      const { point, disks } = await backupMachine(repository, machine, options);
      const file = join(repository.path, 'machines/guest/disks/vda', point.disks[0].file.name);
      run('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', file, raw);
      const found = recordsOf(raw);
      if (found <= records) throw new Error(`point ${point.number} has no newer records`);
      records = found;
      const [{ mode, movedBytes }] = disks;
      console.log(`${point.number}: ${mode}, ${movedBytes} bytes, ${records} records, clean`);
    }
    await machine.close?.();
    return { repository, records };
  } finally {
    await guest.kill();
  }
}

async function connected(folder, sessions, domain) {
  if (domain !== undefined) return await LibvirtMachine.find({ ...domain, folder: sessions });
  return await Machine.connect({
    monitor: { path: join(folder, 'qmp.sock') },
    agent: { path: join(folder, 'agent.sock') },
    folder: sessions,
  });
}

async function main(folder, uri) {
  mkdirSync(folder, { recursive: true });
  makeGuest(folder);
  const { repository, records } = await backUpLive(folder, uri);
  await bootFromPoint(folder, repository.path, records);
}

const [folder, flag, uri] = process.argv.slice(2);
if (folder === undefined || (flag !== undefined && (flag !== '--libvirt' || uri === undefined))) {
  console.error('usage: node scripts/real-guest.mjs FOLDER [--libvirt URI]');
  process.exitCode = 2;
} else await main(resolve(folder), uri);
