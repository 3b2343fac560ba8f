/**
 * Backs up a running machine into a store of its own, again and again, and restores a disk from it.
 *
 *     node examples/live-backup.mjs backup MONITOR STORE       the first time in full, then what has changed
 *     node examples/live-backup.mjs restore STORE DISK FILE    a raw image of the newest backup
 *
 * Without arguments it starts a qemu-storage-daemon as a machine, writes to its disk, and does both.
 *
 * STORE has a folder for each backup, with a file for each disk: each extent is one line of JSON, followed by its bytes if it
 * is data. A backup counts when it is in `manifest.json`, which is written last and replaced as a whole. So this may be
 * killed at any moment: what does not count is removed by the next run, in the store as in the machine.
 */
import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compare, createQcow2, createRawFile, openDevice } from 'lacuna';
import { Machine } from 'lacuna/qemu';

async function backUp(options, store, disks) {
  await mkdir(join(store, 'sessions'), { recursive: true });
  const machine = await Machine.connect({ ...options, folder: join(store, 'sessions') });
  try {
    const manifest = await readManifest(store);
    const generation = manifest.backups.at(-1)?.generation;
    await machine.recover({ generation: generation ?? null });
    await removeUncounted(store, manifest);
    await backUpFrom(await machine.backup({ base: generation, disks }), store, manifest);
  } finally {
    await machine.close();
  }
}

/** What fails is given up, and the next backup begins from where this one began. */
async function backUpFrom(session, store, manifest) {
  try {
    const folder = join(store, session.point.generation);
    await mkdir(folder);
    for (const disk of session.disks) {
      console.log(`${disk.name}: ${disk.mode}, ${disk.reason}`);
      await storeDisk(disk, join(folder, encodeURIComponent(disk.name)));
    }
    await sync(folder);
    await session.finish(async (point) => {
      manifest.backups.push(point);
      await writeManifest(store, manifest);
    });
  } finally {
    await session.fail();
  }
}

async function storeDisk(disk, path) {
  const file = await open(path, 'wx');
  for await (const { offset, length, data } of disk.extents()) {
    await file.write(`${JSON.stringify({ offset, length, zero: data === undefined })}\n`);
    // The bytes are lent until the next turn of the loop, so it waits until they are written.
    if (data !== undefined) await file.write(data);
  }
  await file.sync();
  await file.close();
}

/** The last full backup of a disk, and the increments since, one over the other. */
async function restore(store, name, path) {
  const { backups } = await readManifest(store);
  const chain = backups.filter(({ disks }) => disks.some((disk) => disk.name === name));
  const modeOf = ({ disks }) => disks.find((disk) => disk.name === name).mode;
  const first = chain.findLastIndex((point) => modeOf(point) === 'full');
  const { size } = chain.at(-1).disks.find((disk) => disk.name === name);
  await createRawFile(path, size);
  const device = await openDevice(path, { writable: true });
  for (const { generation } of chain.slice(first)) {
    const bytes = await readFile(join(store, generation, encodeURIComponent(name)));
    for (let at = 0; at < bytes.length; ) {
      const end = bytes.indexOf('\n', at);
      const { offset, length, zero } = JSON.parse(bytes.toString('utf8', at, end));
      at = end + 1;
      if (zero) await device.zero(offset, length);
      else await device.write(offset, bytes.subarray(at, at + length));
      if (!zero) at += length;
    }
  }
  await device.flush();
  await device.close();
}

async function readManifest(store) {
  try {
    return JSON.parse(await readFile(join(store, 'manifest.json'), 'utf8'));
  } catch (error) {
    if (error.code === 'ENOENT') return { backups: [] };
    throw error;
  }
}

/** Durable before it has its name, and its name durable before anything relies on it. */
async function writeManifest(store, manifest) {
  const file = await open(join(store, 'manifest.new'), 'w');
  await file.writeFile(JSON.stringify(manifest, null, 2));
  await file.sync();
  await file.close();
  await rename(join(store, 'manifest.new'), join(store, 'manifest.json'));
  await sync(store);
}

async function removeUncounted(store, { backups }) {
  const counted = ['manifest.json', 'sessions', ...backups.map(({ generation }) => generation)];
  for (const name of await readdir(store)) {
    if (!counted.includes(name)) await rm(join(store, name), { recursive: true });
  }
}

async function sync(folder) {
  const handle = await open(folder);
  await handle.sync();
  await handle.close();
}

async function demonstrate(folder) {
  const [disk, socket] = [join(folder, 'disk.qcow2'), join(folder, 'nbd.sock')];
  await createQcow2(disk, { size: 2 ** 26 });
  const monitor = join(folder, 'qmp.sock');
  const child = spawn('qemu-storage-daemon', [
    ...['--chardev', `socket,id=m,path=${monitor},server=on,wait=off`, '--monitor', 'chardev=m'],
    ...['--blockdev', `qcow2,node-name=vda,file.driver=file,file.filename=${disk}`],
    ...['--nbd-server', `addr.type=unix,addr.path=${socket}`],
    ...['--export', 'nbd,id=guest,node-name=vda,name=vda,writable=on'],
  ]);
  const nbd = { type: 'unix', path: socket };
  try {
    const description = { driver: 'nbd', server: nbd, export: 'vda', 'open-timeout': 60 };
    const guest = await openDevice(description, { writable: true });
    for (let round = 1; round <= 3; round++) {
      await guest.write(round * 2 ** 20, Buffer.alloc(2 ** 21, `round ${round} `));
      await backUp({ monitor: { path: monitor }, nbd }, join(folder, 'store'), [{ node: 'vda' }]);
    }
    await restore(join(folder, 'store'), 'vda', join(folder, 'restored.raw'));
    const { equal } = await compare({ a: guest, b: join(folder, 'restored.raw') });
    console.log(equal ? 'source and target are equal' : 'source and target differ');
    await guest.close();
  } finally {
    child.kill();
  }
}

const [verb, ...names] = process.argv.slice(2);
if (verb === 'backup') await backUp({ monitor: { path: names[0] } }, names[1]);
else if (verb === 'restore') await restore(...names);
else {
  const folder = await mkdtemp(join(tmpdir(), 'lacuna-example-'));
  await demonstrate(folder).finally(() => rm(folder, { recursive: true }));
}
