// What backup tools in use do wrong: each fault was seen in one of them. A trial makes the conditions for it, and looks
// whether what is restored is what the disk held.
import {
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { DISK_BYTES } from './machines.mjs';

const GRANULE = 65536;
const OLD_GRANULES = 200;
const MOST_DAMAGES = 8;

/** Gives out places on a disk that nothing else of a trial touches. */
class Places {
  #next = 0;
  #of = new Map();

  /** The offset of a granule for something that `what` tells. */
  take(what) {
    const offset = GRANULE * this.#next++;
    if (offset >= DISK_BYTES) throw new Error('the tool sends more commands than fit on the disk');
    this.#of.set(offset, what);
    return offset;
  }

  rename(offset, what) {
    this.#of.set(offset, what);
  }

  get isFull() {
    return GRANULE * (this.#next + 4) >= DISK_BYTES;
  }

  /** What lies where two contents of the disk differ. */
  lostIn(a, b) {
    const lost = [];
    for (let offset = 0; offset < DISK_BYTES; offset += GRANULE) {
      const [is, must] = [a, b].map((bytes) => bytes.subarray(offset, offset + GRANULE));
      if (!is.equals(must)) lost.push(this.#of.get(offset) ?? `what lies at ${offset}`);
    }
    return lost;
  }
}

/** Writes between two commands of a tool: none may be missing from the increments that follow. */
async function writesBetween(trial) {
  const { machine } = trial;
  const [disk] = machine.disks;
  const places = new Places();
  let count = 0;
  // Granules that are written already: the tool's bitmap has them as dirty, or has not.
  const old = Array.from({ length: OLD_GRANULES }, () => places.take(''));
  await machine.io(disk, `write -P 1 0 ${old.length * GRANULE}`);
  const write = (backup) => async (command) => {
    const over = old.pop();
    if (places.isFull || over === undefined) return;
    count++;
    const when = `before ${command} of the ${backup}`;
    places.rename(over, `a write over old data ${when}`);
    await machine.io(disk, `write -P ${2 + (count % 200)} ${over} 4096`);
    await machine.io(disk, `write -P ${2 + (count % 200)} ${places.take(`a write ${when}`)} 4096`);
  };
  await machine.during(() => trial.full(), write('full backup'));
  await machine.during(() => trial.increment(), write('first increment'));
  await trial.increment();
  return { ...(await trial.compare(disk, places)), tried: `${count} places` };
}

/** Zeroes and discards: a range that became zero must not come back with its old bytes. */
async function zeroes(trial) {
  const { machine } = trial;
  const [disk] = machine.disks;
  const places = new Places();
  const kinds = [
    ['a range that was zeroed', (at) => `write -z ${at} ${GRANULE}`],
    ['a range that was zeroed and unmapped', (at) => `write -z -u ${at} ${GRANULE}`],
    ['a range that was discarded', (at) => `discard ${at} ${GRANULE}`],
    ['a range that was overwritten with zeroes', (at) => `write -P 0 ${at} ${GRANULE}`],
    ['a part of a granule that was zeroed', (at) => `write -z ${at + 4096} 8192`],
  ];
  const ranges = kinds.map(([what, command]) => command(places.take(what)));
  await machine.io(disk, `write -P 7 0 ${ranges.length * GRANULE}`);
  await trial.full();
  for (const command of ranges) await machine.io(disk, command);
  await trial.increment();
  return { ...(await trial.compare(disk, places)), tried: `${kinds.length} kinds` };
}

/** Damage in what is stored: a restore must fail, or be right. */
async function damage(trial) {
  const { machine } = trial;
  const [disk] = machine.disks;
  await machine.io(disk, `write -P 5 0 ${20 * GRANULE}`);
  await trial.full();
  await machine.io(disk, `write -P 6 ${4 * GRANULE} ${8 * GRANULE}`);
  await trial.increment();
  await machine.end();
  const must = await trial.live(disk);
  const files = filesIn(trial.store).filter((file) => statSync(file).size >= 4096);
  files.sort((a, b) => statSync(b).size - statSync(a).size);
  const silent = [];
  let tried = 0;
  for (const file of files.slice(0, MOST_DAMAGES / 2)) {
    const good = readFileSync(file);
    for (const [what, spoil] of [
      ['a flipped bit in the middle', () => flip(file, good)],
      ['an end that is cut off', () => truncateSync(file, Math.floor(good.length / 2))],
    ]) {
      spoil();
      tried++;
      const restored = await trial.tryToRestore(disk);
      if (restored !== undefined && !restored.equals(must)) {
        silent.push(
          `${what} of ${file.slice(trial.store.length + 1)} restores other data, with exit code 0`,
        );
      }
      writeFileSync(file, good);
    }
  }
  return { lost: silent, tried: `${tried} damages` };
}

function flip(file, good) {
  const bad = Buffer.from(good);
  // Where data is, not padding.
  const middle = bad.findIndex((byte, at) => at >= good.length / 2 && byte !== 0);
  bad[middle === -1 ? Math.floor(good.length / 2) : middle] ^= 1;
  writeFileSync(file, bad);
}

/** Times of files: copied backups have others, and the order of a chain must not come from them. */
async function times(trial) {
  const { machine } = trial;
  const [disk] = machine.disks;
  const places = new Places();
  const at = places.take('the newest of three writes to one place');
  const step = async (value, backup) => {
    await machine.io(disk, `write -P ${value} ${at} ${GRANULE}`);
    await backup();
  };
  await step(1, () => trial.full());
  await step(2, () => trial.increment());
  await step(3, () => trial.increment());
  const files = filesIn(trial.store);
  files.sort((a, b) => statSync(a).mtimeMs - statSync(b).mtimeMs);
  for (const [index, file] of files.entries()) {
    const seconds = 1_600_000_000 - index;
    utimesSync(file, seconds, seconds);
  }
  return { ...(await trial.compare(disk, places)), tried: 'times in reverse' };
}

/** An increment that has little, near the begin: the full backup must be whole below it. */
async function smallIncrement(trial) {
  const { machine } = trial;
  const [disk] = machine.disks;
  const places = new Places();
  while (!places.isFull) places.take('data of the full backup');
  await machine.io(disk, `write -P 8 ${DISK_BYTES / 2} ${16 * GRANULE}`);
  await machine.io(disk, `write -P 9 ${DISK_BYTES - GRANULE} ${GRANULE}`);
  await trial.full();
  await machine.io(disk, `write -P 4 0 512`);
  await trial.increment();
  return {
    ...(await trial.compare(disk, places)),
    tried: '512 bytes',
  };
}

/** Two disks, the name of one of which begins like that of the other: what is stored of them must not mix. */
async function names(trial) {
  const { machine } = trial;
  const lost = [];
  for (const [index, disk] of machine.disks.entries()) {
    await machine.io(disk, `write -P ${10 + index} 0 ${4 * GRANULE}`);
  }
  await trial.full();
  for (const [index, disk] of machine.disks.entries()) {
    await machine.io(disk, `write -P ${20 + index} ${(2 + index) * GRANULE} ${GRANULE}`);
  }
  await trial.increment();
  await machine.end();
  for (const disk of machine.disks) {
    const restored = await trial.restore(disk);
    if (!restored.equals(await trial.live(disk)))
      lost.push(`${disk} is restored as something else`);
  }
  return { lost, tried: machine.disks.join(' and ') };
}

function filesIn(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

const ONE = ['vda'];

export const FAULTS = [
  { id: 'D1', title: 'writes between two commands of the tool', disks: ONE, find: writesBetween },
  { id: 'D2', title: 'ranges that became zero since the last backup', disks: ONE, find: zeroes },
  { id: 'D3', title: 'damage in what is stored', disks: ONE, find: damage },
  { id: 'D4', title: 'times of files that were changed, as by a copy', disks: ONE, find: times },
  {
    id: 'D5',
    title: 'a small increment over a large full backup',
    disks: ONE,
    find: smallIncrement,
  },
  { id: 'D6', title: 'disks whose names begin alike', disks: ['vda', 'vdaa'], find: names },
];
