/**
 * Writes a disk whose layers a job moves, and notes in a log what it does, until it is killed:
 *
 *     node chain-worker.mjs JOB LOG SEED
 *
 * The images are 0.qcow2 to 2.qcow2 of the folder that it runs in, and copy.qcow2, which holds nothing. A line of the log is in the file before what it tells of begins.
 */
import { appendFileSync } from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';
import { Graph } from 'lacuna/graph';
import { Random } from 'lacuna/testing';

const [kind, log, seed] = process.argv.slice(2);
const GRANULE = 65_536;
const random = new Random(Number(seed));
const tell = (line) => appendFileSync(log, `${line}\n`);

const graph = new Graph();
const file = { driver: 'file', filename: '2.qcow2' };
await graph.add({ 'node-name': 'top', driver: 'qcow2', file }, { writable: true });
const guest = await graph.addExport({ name: 'guest', node: 'top', writable: true });
const count = guest.size / GRANULE;

async function write() {
  const granule = random.below(count);
  const value = 10 + random.below(200);
  tell(`write ${granule} ${value}`);
  const bytes = new Uint8Array(GRANULE).fill(value);
  await guest.write(granule * GRANULE, bytes);
  if (random.below(4) === 0) {
    await guest.flush();
    tell('flushed');
  }
}

const COPY = { driver: 'qcow2', file: { driver: 'file', filename: 'copy.qcow2' } };

const JOBS = {
  'stream of all': () => graph.stream({ node: 'top' }),
  'stream to a base': () => graph.stream({ node: 'top', base: 'top.backing.backing' }),
  'stream in the middle': () => graph.stream({ node: 'top.backing' }),
  'commit of the middle': () => graph.commit({ node: 'top.backing', base: 'top.backing.backing' }),
  'commit of the top': () => graph.commit({ node: 'top', base: 'top.backing.backing' }),
  'mirror of all': () => graph.mirror({ node: 'top', target: COPY }),
  'mirror of what is written': () =>
    graph.mirror({ node: 'top', target: COPY, copyMode: 'write-blocking' }),
  'backup of what is dirty': () =>
    graph.backup({
      disks: [{ node: 'top', target: COPY }],
      ...{ sync: 'bitmap', bitmap: 'b', bitmapMode: 'never' },
    }),
};
/** Others come to use what these have made. */
const PIVOTS = ['commit of the top', 'mirror of all', 'mirror of what is written'];

await write();
tell('job');
const job = JOBS[kind]();
let isOver = false;
const ended = job.then(
  () => {
    isOver = true;
  },
  (error) => {
    tell(`failed ${error.stack}`);
    process.exit(1);
  },
);
while (!isOver && !job.isReady) {
  await write();
  await turn();
}
if (PIVOTS.includes(kind)) {
  for (let i = 0; i < 20; i++) await write();
  // Nobody can say from outside which of the two is the disk until this is over.
  tell('pivot');
  await job.complete();
  tell('pivoted');
}
await ended;
tell('over');
for (;;) {
  await write();
  await turn();
}
