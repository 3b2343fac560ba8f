/** Large disks that hold next to nothing: the case that the project exists for. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Workload } from '../support/bench.js';
import { serve } from '../support/nbdkit.js';
import { startServer } from '../support/server.js';
import { GiB, KiB, makeSparse, TiB } from './disks.js';
import { convert, lacuna, makesFile, nbdcopy, timed } from './tools.js';

const SMALL = { size: 16 * GiB, extents: 40 };

const sparseFile = (size: number): Workload => ({
  name: `sparse file to file: ${size / TiB} TiB raw, 4,000 scattered extents of 64 KiB`,
  run: async ({ smoke, folder, race }) => {
    const source = join(folder, 'sparse.raw');
    await makeSparse(source, smoke ? SMALL : { size, extents: 4000 });
    const disk = { folder, source };
    await race([
      makesFile('lacuna copy --no-flush', disk, (to) => lacuna('--no-flush', source, to)),
      makesFile('cp --sparse=auto', disk, (to) => ['cp', '--sparse=auto', source, to]),
      makesFile('cp --sparse=always', disk, (to) => ['cp', '--sparse=always', source, to]),
      makesFile('nbdcopy', disk, (to) => nbdcopy(source, to)),
      makesFile('qemu-img convert', disk, (to) => convert(source, to)),
      makesFile('qemu-img convert -W -m 16', disk, (to) => convert(source, to, '-W', '-m', '16')),
      makesFile('lacuna copy (flushed)', disk, (to) => lacuna(source, to)),
      makesFile('qemu-img convert -t writeback (flushed)', disk, (to) =>
        convert(source, to, '-t', 'writeback'),
      ),
    ]);
  },
});

export const sparseTebibyte = sparseFile(TiB);
export const sparseEightTebibytes = sparseFile(8 * TiB);

const sparseServed = (size: number): Workload => ({
  name: `sparse NBD to file: the same ${size / TiB} TiB served by qemu-nbd`,
  run: async ({ smoke, folder, race }) => {
    const source = join(folder, 'sparse.raw');
    await makeSparse(source, smoke ? SMALL : { size, extents: 4000 });
    const socket = join(folder, 'nbd.sock');
    const flags = ['-f', 'raw', '-r', '-t', '-e', '16', '-k', socket, source];
    const server = await startServer('qemu-nbd', flags, socket);
    const uri = `nbd+unix:///?socket=${socket}`;
    const disk = { folder, source };
    try {
      await race([
        makesFile('lacuna copy --no-flush', disk, (to) => lacuna('--no-flush', uri, to)),
        makesFile('nbdcopy', disk, (to) => nbdcopy(uri, to)),
        makesFile('qemu-img convert -W -m 16', disk, (to) => convert(uri, to, '-W', '-m', '16')),
      ]);
    } finally {
      await server.stop();
    }
  },
});

export const sparseServedTebibyte = sparseServed(TiB);
export const sparseServedEightTebibytes = sparseServed(8 * TiB);

/** The server itself fails a write that is not what it would have said. */
export const sparseRandom: Workload = {
  name: 'sparse-random: 100 GiB, 10 % data, nbdkit sparse-random onto itself',
  run: async ({ smoke, race }) => {
    const size = smoke ? '64M' : '100G';
    const { uri, stop } = await serve(['sparse-random', size, 'percent=10', 'seed=1']);
    try {
      await race([
        timed('lacuna copy', lacuna(uri, uri)),
        timed('nbdcopy', nbdcopy(uri, uri)),
        timed('nbdcopy --destination-is-zero', nbdcopy('--destination-is-zero', uri, uri)),
        timed(
          'qemu-img convert -n -W -m 16 --target-is-zero',
          convert(uri, uri, '-n', '-W', '-m', '16', '--target-is-zero'),
        ),
      ]);
    } finally {
      await stop();
    }
  },
};

/** Without qemu-img, which takes minutes: it asks for one extent at a time, and nbdkit looks for each from the start. */
export const manySmall: Workload = {
  name: 'many small: 300,000 extents of 64 KiB, every other a hole, nbdkit to null',
  run: async ({ smoke, folder, race }) => {
    const count = smoke ? 200 : 300_000;
    const list = join(folder, 'extents.txt');
    const lines = Array.from({ length: count }, (_, i) => {
      return `${i * 64 * KiB} ${64 * KiB} ${i % 2 === 0 ? '' : 'hole,zero'}`;
    });
    await writeFile(list, `${lines.join('\n')}\n`);
    const size = count * 64 * KiB;
    const data = ['--filter=extentlist', 'pattern', String(size), `extentlist=${list}`];
    const { uri, stop } = await serve(data);
    try {
      await race([
        timed('lacuna copy', lacuna(uri, 'null:')),
        timed('nbdcopy', nbdcopy(uri, 'null:')),
      ]);
    } finally {
      await stop();
    }
  },
};
