/**
 * A backup product of one's own: disks are cut into chunks that are stored once, by their digests. A full backup reads what
 * is allocated, an increment only what a bitmap marks; every point can be restored on its own.
 *
 *     node examples/chunk-store.mjs backup SOURCE STORE
 *     node examples/chunk-store.mjs restore STORE POINT TARGET
 *
 * Without arguments it backs up a disk of its own, in full and as an increment, and restores both.
 *
 * A point is a file of JSON with the digest of each chunk, or null for zeroes. It is written last: what is cut off by a crash is
 * a chunk that no point names.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { compare, copy, createRawFile, openDevice, plan } from 'lacuna';
import { Bitmap } from 'lacuna/bitmap';

const CHUNK = 1024 * 1024;

class ChunkStore {
  constructor(folder) {
    this.folder = folder;
  }

  /** @param dirty what has changed since the newest point, as a bitmap; without it the disk is read in full. */
  async backup(source, dirty) {
    const points = await this.points();
    const parent = dirty === undefined ? undefined : await this.point(points.at(-1));
    const made = await plan({ source, ...(parent && { bitmap: dirty }), granularity: CHUNK });
    const device = await openDevice(source);
    const chunks = parent?.chunks ?? Array(Math.ceil(device.size / CHUNK)).fill(null);
    let stored = 0;
    try {
      // What is dirty and reads as zero is in the plan as well: the chunk of the parent must go.
      for (const { offset, length } of made.zero.ranges()) {
        if (parent) chunks.fill(null, offset / CHUNK, Math.ceil((offset + length) / CHUNK));
      }
      for (const { offset, length } of made.data.ranges()) {
        for (let at = offset; at < offset + length; at += CHUNK) {
          const bytes = Buffer.alloc(Math.min(CHUNK, device.size - at));
          await device.read(at, bytes);
          const { digest, isNew } = await this.#store(bytes);
          chunks[at / CHUNK] = digest;
          if (isNew) stored++;
        }
      }
    } finally {
      made.data.free();
      made.zero.free();
      await device.close();
    }
    const number = (points.at(-1) ?? 0) + 1;
    const manifest = JSON.stringify({ size: device.size, chunks });
    await writeWhole(join(this.folder, 'points', `${number}.json`), manifest);
    return { number, stored };
  }

  async restore(number, target) {
    const { size, chunks } = await this.point(number);
    await createRawFile(target, size, { exclusive: true });
    const device = await openDevice(target, { writable: true });
    try {
      for (const [index, digest] of chunks.entries()) {
        if (digest !== null) await device.write(index * CHUNK, await this.#load(digest));
      }
      await device.flush();
    } finally {
      await device.close();
    }
  }

  /** The numbers of all points, oldest first. */
  async points() {
    const names = await readdir(join(this.folder, 'points')).catch(() => []);
    return names
      .filter((name) => /^\d+\.json$/.test(name))
      .map((name) => Number.parseInt(name, 10))
      .sort((a, b) => a - b);
  }

  async point(number) {
    return JSON.parse(await readFile(join(this.folder, 'points', `${number}.json`), 'utf8'));
  }

  async #store(bytes) {
    const digest = digestOf(bytes);
    const path = this.#path(digest);
    const isNew = !existsSync(path);
    if (isNew) await writeWhole(path, bytes);
    return { digest, isNew };
  }

  async #load(digest) {
    const bytes = await readFile(this.#path(digest));
    if (digestOf(bytes) === digest) return bytes;
    throw new Error(`${this.#path(digest)} is damaged: restore it from another copy of the store`);
  }

  #path(digest) {
    return join(this.folder, 'chunks', digest.slice(0, 2), digest);
  }
}

function digestOf(bytes) {
  return createHash('sha256').update(bytes).digest('hex');
}

/** A file that is there is whole: it gets its name when its bytes are durable. */
async function writeWhole(path, content) {
  await mkdir(dirname(path), { recursive: true });
  const file = await open(`${path}.new`, 'w');
  await file.writeFile(content);
  await file.sync();
  await file.close();
  await rename(`${path}.new`, path);
  const folder = await open(dirname(path));
  await folder.sync();
  await folder.close();
}

async function demonstrate(folder) {
  const [source, first, restored] = ['disk.raw', 'first.raw', 'again.raw'].map((name) =>
    join(folder, name),
  );
  await createRawFile(source, 2 ** 30);
  const disk = await openDevice(source, { writable: true });
  await disk.write(0, Buffer.alloc(3 * CHUNK, 'one'));
  await disk.write(500 * CHUNK, Buffer.alloc(CHUNK, 'two'));
  await disk.flush();
  await disk.close();
  const store = new ChunkStore(join(folder, 'store'));
  const full = await store.backup(source);
  console.log(`point ${full.number}: stored ${full.stored} chunks`);
  await copy({ source, target: first });

  // Who writes notes it. One chunk is written again with what another one holds, and one is zeroed.
  const changed = await openDevice(source, { writable: true });
  const dirty = new Bitmap({ size: changed.size, granularity: 65536 });
  await changed.write(900 * CHUNK + 4096, Buffer.alloc(4096, 'new'));
  dirty.set(900 * CHUNK + 4096, 4096);
  await changed.zero(0, CHUNK);
  dirty.set(0, CHUNK);
  await changed.flush();
  await changed.close();
  const increment = await store.backup(source, dirty);
  dirty.free();
  console.log(`point ${increment.number}: stored ${increment.stored} chunks`);

  let equal = true;
  for (const [number, as] of [
    [full.number, first],
    [increment.number, source],
  ]) {
    const target = `${restored}.${number}`;
    await store.restore(number, target);
    equal &&= (await compare({ a: target, b: as })).equal;
  }
  console.log(equal ? 'source and target are equal' : 'source and target differ');
}

const [verb, ...names] = process.argv.slice(2);
if (verb === 'backup' && names.length === 2) {
  console.log(await new ChunkStore(names[1]).backup(names[0]));
} else if (verb === 'restore' && names.length === 3) {
  await new ChunkStore(names[0]).restore(Number(names[1]), names[2]);
} else if (verb === undefined) {
  const folder = await mkdtemp(join(tmpdir(), 'lacuna-example-'));
  await demonstrate(folder).finally(() => rm(folder, { recursive: true }));
} else {
  console.error('say: backup SOURCE STORE, or restore STORE POINT TARGET');
  process.exitCode = 2;
}
