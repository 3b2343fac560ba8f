/**
 * The tests talk to other people's NBD programs, because a client and a server of one author agree even
 * where both are wrong. The models of the bitmap's lock and claim are checked by spin, which needs a
 * compiler. The page of the daemon is used in a browser. Kinds of path are made with the system's tools for devices,
 * file systems and rights. This finds the programs, and installs their packages where it may.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Every program that a test runs, with the Debian package that brings it. */
const PACKAGES = {
  'qemu-img': 'qemu-utils',
  'qemu-io': 'qemu-utils',
  'qemu-nbd': 'qemu-utils',
  'qemu-storage-daemon': 'qemu-system-common',
  'qemu-system-x86_64': 'qemu-system-x86',
  'qemu-ga': 'qemu-guest-agent',
  libvirtd: 'libvirt-daemon-system',
  virsh: 'libvirt-clients',
  virtnbdbackup: 'virtnbdbackup',
  nbdkit: 'nbdkit',
  'nbd-server': 'nbd-server',
  nbdinfo: 'libnbd-bin',
  nbdcopy: 'libnbd-bin',
  fio: 'fio',
  chromium: 'chromium',
  openssl: 'openssl',
  spin: 'spin',
  gcc: 'build-essential',
  setfacl: 'acl',
  getfacl: 'acl',
  setfattr: 'attr',
  getfattr: 'attr',
  losetup: 'mount',
  mke2fs: 'e2fsprogs',
  unshare: 'util-linux',
  zsh: 'zsh',
  fish: 'fish',
  mandoc: 'mandoc',
  python3: 'python3',
  'systemd-notify': 'systemd',
  'systemd-analyze': 'systemd',
};

/** Where programs for root are, which other users' PATH leaves out. */
const ROOTS_FOLDERS = ['/usr/sbin', '/sbin'];

/** Modules of the system's Python, which another Python in the path does not have. */
const PYTHON = '/usr/bin/python3';
const MODULES = { nbd: 'python3-libnbd' };

/** What is missing, by name, with its package. */
function missing() {
  const programs = Object.entries(PACKAGES).filter(([program]) => !isInstalled(program));
  const modules = Object.entries(MODULES).filter(([module]) => !isImportable(module));
  return [...programs, ...modules];
}

function isImportable(module) {
  return spawnSync(PYTHON, ['-c', `import ${module}`], { stdio: 'ignore' }).status === 0;
}

function isInstalled(program) {
  return [...(process.env.PATH ?? '').split(delimiter), ...ROOTS_FOLDERS].some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function aptGet(...args) {
  // Another one may be at work, on a machine that has just been started.
  const options = ['-y', '-q', '-o', 'DPkg::Lock::Timeout=600'];
  const { status } = spawnSync('apt-get', [...options, ...args], {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  });
  return status === 0;
}

function main() {
  const absent = missing();
  if (absent.length === 0) return 0;
  const packages = [...new Set(absent.map(([, name]) => name))];
  console.error(`The tests need ${absent.map(([name]) => name).join(', ')}.`);

  const mayInstall = process.getuid?.() === 0 && existsSync('/etc/debian_version');
  if (mayInstall) {
    console.error(`Installing the Debian packages ${packages.join(', ')}.`);
    // A new machine has no list of packages, or an old one. One source that fails may not matter.
    if (!aptGet('update')) console.error('Not all lists of packages could be fetched.');
    aptGet('install', '--no-install-recommends', ...packages);
  }
  const left = missing();
  if (left.length === 0) return 0;
  const wanted = [...new Set(left.map(([, name]) => name))].join(' ');
  console.error(`
The tests cannot run without ${left.map(([name]) => name).join(', ')}. On Debian and Ubuntu this installs them:

    sudo apt-get update && sudo apt-get install --no-install-recommends ${wanted}

Elsewhere the packages are those of QEMU (its tools, its storage daemon, its x86 emulator and its guest agent), libvirt, nbdkit, nbd, libnbd and its Python
module, fio, Chromium, openssl, spin, zsh, fish, mandoc, gcc with make and the C library's headers, Python 3, acl, attr, e2fsprogs and util-linux.`);
  return 1;
}

process.exitCode = main();
