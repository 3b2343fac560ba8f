/**
 * The tests talk to other people's NBD programs, because a client and a server of one author agree even
 * where both are wrong. The models of the bitmap's lock and claim are checked by spin, which needs a
 * compiler. Kinds of path are made with the system's tools for devices, file systems and rights. This finds
 * the programs, and installs their packages where it may.
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
  nbdkit: 'nbdkit',
  'nbd-server': 'nbd-server',
  nbdinfo: 'libnbd-bin',
  nbdcopy: 'libnbd-bin',
  fio: 'fio',
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
  const { status } = spawnSync('apt-get', ['-y', '-q', ...args], {
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
    // A stale package list is the usual reason for a failed installation on a fresh machine.
    const installed = aptGet('update') && aptGet('install', '--no-install-recommends', ...packages);
    if (installed && missing().length === 0) return 0;
  }
  console.error(`Install them and run this again. On Debian and Ubuntu:

    sudo apt-get update && sudo apt-get install ${packages.join(' ')}

Elsewhere they come with the packages of QEMU (tools), nbdkit, nbd, libnbd, spin, gcc, acl and attr.`);
  return 1;
}

process.exitCode = main();
