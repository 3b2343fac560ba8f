/** Nothing to skip: what the data plane itself costs. */
import { join } from 'node:path';
import type { Workload } from '../support/bench.js';
import { serve } from '../support/nbdkit.js';
import { GiB, MiB, makeDense } from './disks.js';
import { convert, convertToNull, lacuna, makesFile, nbdcopy, timed } from './tools.js';

export const denseNbdToNbd: Workload = {
  name: 'dense NBD to NBD: 8 GiB, nbdkit pattern to nbdkit null',
  run: async ({ smoke, race }) => {
    const size = String(smoke ? 8 * MiB : 8 * GiB);
    const source = await serve(['pattern', size]);
    const target = await serve(['null', size]);
    const uris = [source.uri, target.uri] as const;
    try {
      await race([
        timed('lacuna copy', lacuna(...uris)),
        timed('nbdcopy', nbdcopy(...uris)),
        timed('qemu-img convert -n -W -m 16', convert(...uris, '-n', '-W', '-m', '16')),
      ]);
    } finally {
      await Promise.all([source.stop(), target.stop()]);
    }
  },
};

export const denseNbdToNull: Workload = {
  name: 'dense NBD to null: 8 GiB, nbdkit pattern',
  run: ({ smoke, race }) => readPattern(smoke ? 8 * MiB : 8 * GiB, [], race),
};

export const slowServer: Workload = {
  name: 'latency: 2 GiB, nbdkit pattern that answers after 5 ms, to null',
  run: ({ smoke, race }) =>
    readPattern(smoke ? 4 * MiB : 2 * GiB, ['--filter=delay', 'rdelay=5ms'], race),
};

async function readPattern(
  size: number,
  slowness: readonly string[],
  race: Parameters<Workload['run']>[0]['race'],
): Promise<void> {
  const [filter = [], parameter = []] = slowness;
  const { uri, stop } = await serve([filter, 'pattern', String(size), parameter].flat());
  try {
    await race([
      timed('lacuna copy', lacuna(uri, 'null:')),
      timed('nbdcopy', nbdcopy(uri, 'null:')),
      timed('qemu-img convert -n -W -m 16', convertToNull(uri, size)),
    ]);
  } finally {
    await stop();
  }
}

export const denseFileToFile: Workload = {
  name: 'dense file to file: 4 GiB',
  run: async ({ smoke, folder, race }) => {
    const source = join(folder, 'dense.raw');
    await makeDense(source, smoke ? 8 * MiB : 4 * GiB);
    const disk = { folder, source };
    await race([
      makesFile('lacuna copy --no-flush', disk, (to) => lacuna('--no-flush', source, to)),
      makesFile('cp', disk, (to) => ['cp', source, to]),
      makesFile('cp --sparse=always', disk, (to) => ['cp', '--sparse=always', source, to]),
      makesFile('nbdcopy', disk, (to) => nbdcopy(source, to)),
      makesFile('dd bs=1M', disk, (to) => ['dd', 'bs=1M', `if=${source}`, `of=${to}`]),
      makesFile('qemu-img convert -W -m 16', disk, (to) => convert(source, to, '-W', '-m', '16')),
    ]);
  },
};
