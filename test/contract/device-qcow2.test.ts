import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openDevice } from '#dist/block/index.js';
import { run } from '../support/peers.js';
import { ODD_SIZE, suite } from './suites.js';

/** Sizes of an image are whole sectors. */
const SIZE = ODD_SIZE - (ODD_SIZE % 512);

/** A new image, with data, zeroes and compressed clusters over a backing file that is shorter. */
function image(...options: string[]) {
  const open = async () => {
    const folder = await mkdtemp(join(tmpdir(), 'lacuna-'));
    const [base, path] = ['base.qcow2', 'disk.qcow2'].map((name) => join(folder, name));
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', base, String(SIZE / 2)]);
    await run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 1 100k 200k', base]);
    const given = options.flatMap((option) => ['-o', option]);
    const backing = ['-b', 'base.qcow2', '-F', 'qcow2'];
    await run('qemu-img', [
      'create',
      '-q',
      '-f',
      'qcow2',
      ...given,
      ...backing,
      path,
      String(SIZE),
    ]);
    const commands = ['write -P 2 0 8k', 'write -c -P 3 512k 64k', 'write -z 256k 64k'];
    await run('qemu-io', ['-f', 'qcow2', ...commands.flatMap((c) => ['-c', c]), path]);
    const device = await openDevice(path);
    return { device, dispose: () => rm(folder, { recursive: true }) };
  };
  return { size: SIZE, open, keeps: false };
}

suite('read-only qcow2', image());
suite('read-only qcow2 with subclusters', image('extended_l2=on', 'compression_type=zstd'));
