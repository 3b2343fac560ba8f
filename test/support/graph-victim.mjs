// Writes a disk in a graph, populates a bitmap and takes snapshots, and says each step, until it is killed:
// `node graph-victim.mjs SEED`, in the folder of disk.qcow2.
import { writeSync } from 'node:fs';
import { Graph } from 'lacuna/graph';
import { Random } from 'lacuna/testing';

const GRANULE = 65_536;
const random = new Random(Number(process.argv[2]));
const say = (...words) => writeSync(1, `${words.join(' ')}\n`);
const image = (name) => ({
  'node-name': name,
  driver: 'qcow2',
  file: { driver: 'file', filename: `${name}.qcow2` },
});

const graph = new Graph();
await graph.add(image('disk'), { writable: true });
const guest = await graph.addExport({ name: 'guest', node: 'disk', writable: true });
let top = 'disk';

/** A write is said before it begins, and when it is durable. */
async function write() {
  const granule = random.below(guest.size / GRANULE);
  const value = 1 + random.below(250);
  say('begin', granule, value, top);
  await guest.write(granule * GRANULE, new Uint8Array(GRANULE).fill(value));
  await guest.flush();
  say('end', granule, value);
}

for (let layer = 1; ; layer++) {
  await write();
  await write();
  const populated = graph.populate({
    from: 'allocation',
    sources: [{ node: 'disk' }],
    targets: [{ node: 'disk', bitmap: 'rests' }],
  });
  await write();
  await populated;
  say('populated');
  if (random.below(2) === 0) {
    await graph.storeBitmaps('disk');
    say('stored');
  }
  if (layer > 3) continue;
  const overlay = image(`top${layer}`);
  await graph.create({ image: overlay, over: top });
  say('created', overlay['node-name']);
  await graph.snapshot({ disks: [{ node: top, overlay, bitmaps: 'copy' }] });
  top = overlay['node-name'];
  say('taken', top);
}
