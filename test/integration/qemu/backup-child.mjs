// One backup in a process of its own, which a test may kill at any step. Its argument is JSON: how the machine is
// reached, its disks, a folder for images and the manifest, and options of the backup. At each phase it waits until it is told to go on.
import {
  copyFileSync,
  existsSync,
  openSync,
  readFileSync,
  renameSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { LibvirtMachine, Machine } from 'lacuna/qemu';

const { machine: options, disks, store, size, backup } = JSON.parse(process.argv[2]);
const manifestPath = join(store, 'manifest.json');
const told = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function phase(name) {
  process.stdout.write(`${name}\n`);
  await told.next();
}

const manifest = existsSync(manifestPath)
  ? JSON.parse(readFileSync(manifestPath, 'utf8'))
  : undefined;
await phase('loaded');
const machine =
  options.domain === undefined
    ? await Machine.connect(options)
    : await LibvirtMachine.find(options);
const session = await machine.backup({ disks, base: manifest?.generation, ...backup });
await phase('begun');
const images = {};
for (const disk of session.disks) {
  const path = join(store, `${session.point.generation}-${disk.name}`);
  const from = manifest?.images[disk.name];
  if (from === undefined) writeFileSync(path, Buffer.alloc(size));
  else copyFileSync(from, path);
  const fd = openSync(path, 'r+');
  for await (const { offset, length, data } of disk.extents()) {
    writeSync(fd, data ?? Buffer.alloc(length), 0, length, offset);
  }
  images[disk.name] = path;
  await phase('read');
}
await session.finish(async ({ generation }) => {
  await phase('view ended');
  writeFileSync(`${manifestPath}.new`, JSON.stringify({ generation, images }));
  renameSync(`${manifestPath}.new`, manifestPath);
  await phase('recorded');
});
await phase('finished');
await machine.close?.();
process.exit(0);
