// A backup tool that is as careless as some in use, for the test of the script that finds this out: it adds its bitmap in
// another command than that which begins the backup, leaves zeroes out of increments, checks nothing that it restores, takes
// the order of increments from the times of files, and finds the files of a disk by how their names begin.
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Monitor } from 'lacuna/qmp';

const [verb, ...args] = process.argv.slice(2);
if (verb === 'restore') restore(...args);
else await backUp(...args);

async function backUp(qmp, store) {
  const monitor = await Monitor.connect({ path: qmp });
  for (const { qdev, inserted } of await monitor.execute('query-block')) {
    const disk = qdev.split('/')[3];
    const node = inserted['node-name'];
    const size = inserted.image['virtual-size'];
    const image = join(store, 'image');
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', image, String(size)]);
    await monitor.execute('blockdev-add', {
      ...{ driver: 'qcow2', 'node-name': 'target' },
      file: { driver: 'file', filename: image },
    });
    const how = verb === 'full' ? { sync: 'full' } : { sync: 'incremental', bitmap: 'careless' };
    const events = monitor.events(['JOB_STATUS_CHANGE']);
    // Waiting for an event keeps no process alive.
    const alive = setInterval(() => {}, 1000);
    await monitor.execute('blockdev-backup', {
      ...{ 'job-id': 'careless', device: node, target: 'target', ...how },
    });
    for await (const { data } of events) if (data.status === 'concluded') break;
    clearInterval(alive);
    if (verb === 'full') {
      await monitor.execute('block-dirty-bitmap-add', { node, name: 'careless' });
    }
    await monitor.execute('blockdev-del', { 'node-name': 'target' });
    const raw = join(store, 'raw');
    execFileSync('qemu-img', ['convert', '-O', 'raw', image, raw]);
    const map = JSON.parse(execFileSync('qemu-img', ['map', '--output=json', image]).toString());
    const bytes = readFileSync(raw);
    const extents = verb === 'full' ? [{ start: 0, length: size, data: true }] : map;
    const parts = extents.flatMap(({ start, length, data, zero }) => {
      if (!data || zero) return [];
      const head = Buffer.alloc(16);
      head.writeDoubleLE(start);
      head.writeDoubleLE(length, 8);
      return [head, bytes.subarray(start, start + length)];
    });
    const count = readdirSync(store).length;
    writeFileSync(join(store, `${disk}.${count}.${verb}`), Buffer.concat(parts));
    for (const path of [image, raw]) rmSync(path);
  }
  await monitor.close();
}

function restore(store, disk, target) {
  const files = readdirSync(store).filter((name) => name.startsWith(disk));
  files.sort((a, b) => statSync(join(store, a)).mtimeMs - statSync(join(store, b)).mtimeMs);
  files.sort((a, b) => Number(b.endsWith('full')) - Number(a.endsWith('full')));
  const image = Buffer.alloc(32 * 2 ** 20);
  for (const file of files) {
    const bytes = readFileSync(join(store, file));
    for (let at = 0; at + 16 <= bytes.length; ) {
      const [start, length] = [bytes.readDoubleLE(at), bytes.readDoubleLE(at + 8)];
      bytes.copy(image, start, at + 16, at + 16 + length);
      at += 16 + length;
    }
  }
  writeFileSync(target, image);
}
