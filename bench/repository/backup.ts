/** The first backup of a disk that holds next to nothing. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { GiB, makeSparse, TiB } from '../copy/disks.js';
import { type Command, measured, ours } from '../copy/tools.js';
import { type Contender, exec, type Workload } from '../support/bench.js';
import { bytesOnDisk } from './space.js';

const SMALL = { size: GiB / 4, extents: 40 };

/** restic reads holes as everything else, so that a TiB would take it most of an hour. */
const sparse = (size: number, withRestic: boolean): Workload => ({
  name: `backup: ${size / GiB} GiB raw, 4,000 scattered extents of 64 KiB`,
  run: async ({ smoke, folder, race }) => {
    const source = join(folder, 'sparse.raw');
    await makeSparse(source, smoke ? SMALL : { size, extents: 4000 });
    await race([
      lacunaBackup(folder, source, []),
      lacunaBackup(folder, source, ['--compress=deflate']),
      convert(folder, source, []),
      convert(folder, source, ['-c', '-W', '-m', '16']),
      ...(withRestic && (await hasRestic()) ? [restic(folder, source)] : []),
    ]);
  },
});

function lacunaBackup(folder: string, source: string, flags: readonly string[]): Contender {
  const path = join(folder, 'repository');
  const back = join(folder, 'back.raw');
  return {
    name: ['lacuna backup', ...flags].join(' '),
    run: () => measured(ours('backup', ...flags, source, path)),
    verify: async () => {
      const [program, ...args] = ours('restore', path, 'latest', back);
      await exec(program, args);
      await sameAs(source, back);
    },
    storedBytes: () => bytesOnDisk(path),
    clear: () => remove(path, back),
  };
}

function convert(folder: string, source: string, flags: readonly string[]): Contender {
  const target = join(folder, 'converted.qcow2');
  const command: Command = [
    ...(['qemu-img', 'convert'] as const),
    ...[...flags, '-f', 'raw', '-O', 'qcow2', source, target],
  ];
  return {
    name: ['qemu-img convert', ...flags].join(' '),
    run: () => measured(command),
    verify: () => sameAs(source, target, 'qcow2'),
    storedBytes: () => bytesOnDisk(target),
    clear: () => remove(target),
  };
}

function restic(folder: string, source: string): Contender {
  const path = join(folder, 'restic');
  // It always encrypts; the password is no secret here.
  const options = ['--password-command', 'echo bench', '--no-cache', '-q', '-r', path];
  return {
    name: 'restic backup',
    prepare: async () => void (await exec('restic', [...options, 'init'])),
    run: () => measured(['restic', ...options, 'backup', source]),
    verify: async () => {
      // Its restore would fill every hole.
      const script = 'set -o pipefail; "$@" | cmp - "$SOURCE"';
      const env = { ...process.env, SOURCE: source };
      await exec('bash', ['-c', script, 'bash', 'restic', ...options, 'dump', 'latest', source], {
        env,
      });
    },
    storedBytes: () => bytesOnDisk(path),
    clear: () => remove(path),
  };
}

/** It is no peer of the tests, which run this bench too. */
async function hasRestic(): Promise<boolean> {
  try {
    await exec('restic', ['version']);
    return true;
  } catch {
    console.error('restic is not installed, and left out');
    return false;
  }
}

async function sameAs(source: string, copy: string, format = 'raw'): Promise<void> {
  await exec('qemu-img', ['compare', '-f', 'raw', '-F', format, source, copy]);
}

async function remove(...paths: readonly string[]): Promise<void> {
  for (const path of paths) await rm(path, { recursive: true, force: true });
}

export const backupTebibyte = sparse(TiB, false);
export const backupForRestic = sparse(32 * GiB, true);
