/**
 * How long it takes to plan, copy and digest large disks that are nearly empty, beside cp.
 *
 *     node examples/sparse-bench.mjs [TEBIBYTES [PIECES]]
 *
 * Without arguments the disk has 64 GiB.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, open, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { compare, copy, digest, plan } from 'lacuna';

const run = promisify(execFile);
const TIB = 2 ** 40;
const PIECE = 65536;

const [tebibytes = '0.0625', pieces = '100'] = process.argv.slice(2);
const size = Math.round(Number(tebibytes) * TIB);
const count = Number(pieces);
if (!(size >= PIECE * count * 2) || !(count >= 1)) {
  throw new RangeError('say a size in TiB, and how many pieces of 64 KiB are written in it');
}

async function makeDisk(path) {
  const file = await open(path, 'wx');
  await file.truncate(size);
  const step = Math.floor(size / count / PIECE) * PIECE;
  for (let i = 0; i < count; i++) {
    await file.write(Buffer.alloc(PIECE, `piece ${i}`), 0, PIECE, i * step);
  }
  await file.close();
}

async function timed(what, work) {
  const started = performance.now();
  const result = await work();
  console.log(`${what.padEnd(28)} ${(performance.now() - started).toFixed(0).padStart(8)} ms`);
  return result;
}

const folder = await mkdtemp(join(tmpdir(), 'lacuna-example-'));
const [source, raw, image] = ['disk.raw', 'copy.raw', 'copy.qcow2'].map((name) =>
  join(folder, name),
);
try {
  await makeDisk(source);
  console.log(`a disk of ${size} bytes with ${count} pieces of ${PIECE} bytes\n`);
  await timed('plan', async () => {
    const made = await plan({ source });
    console.log(`  ${made.totals.dataBytes} bytes of data`);
    made.data.free();
    made.zero.free();
  });
  await timed('copy to a raw file', () => copy({ source, target: raw }));
  await timed('copy to a qcow2 image', () => copy({ source, target: image }));
  await timed('digest', () => digest(source));
  const { equal } = await timed('compare raw and qcow2', () => compare({ a: raw, b: image }));
  await timed('cp --sparse=auto', () =>
    run('cp', ['--sparse=auto', source, join(folder, 'cp.raw')]),
  );
  const { blocks } = await stat(raw);
  console.log(`\nthe copy takes ${blocks * 512} bytes of the file system`);
  console.log(equal ? 'source and target are equal' : 'source and target differ');
} finally {
  await rm(folder, { recursive: true });
}
