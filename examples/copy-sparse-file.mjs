/**
 * Copies a disk image that is mostly hole, and reports what that took.
 *
 *     node examples/copy-sparse-file.mjs [SOURCE TARGET]
 *
 * Without arguments it makes a sparse image of 100 GiB to copy, in a temporary folder.
 */
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compare, copy } from 'lacuna';

const GIB = 2 ** 30;

async function makeSparseImage(path) {
  const file = await open(path, 'wx');
  await file.truncate(100 * GIB);
  for (const at of [0, 42 * GIB, 99 * GIB])
    await file.write(Buffer.alloc(65536, 'data'), 0, 65536, at);
  await file.close();
}

async function copyAndReport(source, target) {
  const job = copy({ source, target });
  for await (const { phase, doneBytes, totalBytes } of job) {
    console.error(`${phase}: ${doneBytes} of ${totalBytes} bytes`);
  }
  const report = await job;
  console.log(`moved ${report.movedBytes} of ${report.size} bytes`);

  const { equal } = await compare({ a: source, b: target });
  console.log(equal ? 'source and target are equal' : 'source and target differ');
}

const [source, target] = process.argv.slice(2);
if (source !== undefined && target !== undefined) {
  await copyAndReport(source, target);
} else {
  const folder = await mkdtemp(join(tmpdir(), 'lacuna-example-'));
  try {
    await makeSparseImage(join(folder, 'disk.raw'));
    await copyAndReport(join(folder, 'disk.raw'), join(folder, 'copy.raw'));
  } finally {
    await rm(folder, { recursive: true });
  }
}
