// Moves a real guest, which writes numbered records and syncs each, from one QEMU to another, so many times: each time by the
// bitmap of its newest restore point, to an image over that point, while it writes. Then it is frozen and backed up where it runs
// now, and that point is restored with qemu-img: the file system must be clean, and the records a prefix without a gap, longer
// than before.
//
//     npm run build && node scripts/guest-moves.mjs FOLDER [TIMES]
//
// It needs what scripts/real-guest.mjs needs, and keeps the same things in FOLDER.
import { existsSync, mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { backupMachine, Machine } from 'lacuna/qemu';
import { Repository } from 'lacuna/repository';
import { Guest, makeDisk, makeGuest, recordsOf, run } from './guest/guest.mjs';

const TIMES = 50;
/** With threads, the emulation of QEMU 7.2 was seen to spoil the memory of a guest that moved, once in 36 times. */
const ACCEL = 'tcg,thread=single';
/** Records that the guest writes between two backups, and where it runs now. */
const MORE_RECORDS = 50;
const LOOK_MS = 50;

/** A guest, and where it runs. */
class MovingGuest {
  #folder;
  #repository;
  #guest;
  #machine;
  #moves = 0;
  #records = 0;
  #newest;

  constructor(folder) {
    this.#folder = folder;
    const name = `repository-${process.pid}`;
    this.#repository = Repository.open(join(folder, name), { create: true });
  }

  async start() {
    const drive = `format=qcow2,file=${makeDisk(this.#folder)},node-name=disk0`;
    this.#guest = new Guest(this.#folder, drive, { accel: ACCEL });
    await this.#guest.booted();
    this.#machine = await this.#connect('');
  }

  async stop() {
    await this.#machine?.close();
    await this.#guest?.kill();
  }

  #connect(name) {
    return Machine.connect({
      monitor: { path: join(this.#folder, `qmp${name}.sock`) },
      agent: { path: join(this.#folder, `agent${name}.sock`) },
      folder: this.#folder,
    });
  }

  /** Makes a restore point, restores it, and looks at it. */
  async backUp() {
    await this.#guest.wrote(this.#records + MORE_RECORDS);
    const options = { machine: 'guest', freeze: 'require' };
    const { point, disks } = await backupMachine(this.#repository, this.#machine, options);
    const { name } = point.disks[0].file;
    this.#newest = join(this.#repository.path, 'machines/guest/disks/vda', name);
    this.generation = `${this.#repository.id.slice(0, 8)}-${point.id}`;
    const raw = join(this.#folder, 'restored.raw');
    run('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', this.#newest, raw);
    const found = recordsOf(raw);
    if (found <= this.#records) throw new Error(`point ${point.number} has no newer records`);
    this.#records = found;
    const [{ mode, movedBytes }] = disks;
    console.log(`${point.number}: ${mode}, ${movedBytes} bytes, ${found} records, clean`);
  }

  /** Moves to another QEMU, over the newest restore point. */
  async move() {
    const name = `-${++this.#moves % 2}`;
    const image = join(this.#folder, `moved-${process.pid}-${this.#moves}.qcow2`);
    run('qemu-img', 'create', '-f', 'qcow2', '-F', 'qcow2', '-b', this.#newest, image);
    const drive = `format=qcow2,file=${image},node-name=disk0`;
    const next = new Guest(this.#folder, drive, {
      ...{ name, accel: ACCEL },
      more: ['-incoming', 'defer'],
    });
    try {
      await this.#moveTo(next, join(this.#folder, `qmp${name}.sock`), image);
    } catch (error) {
      await next.kill();
      throw error;
    }
    await this.stop();
    this.#guest = next;
    this.#machine = await this.#connect(name);
  }

  async #moveTo(next, path, image) {
    while (!existsSync(path)) {
      if (!next.isRunning()) throw new Error('the QEMU to move to does not start');
      await sleep(LOOK_MS);
    }
    const { rounds, pauseMs, memoryBytes } = await this.#machine.migrate({
      destination: { path },
      bitmap: this.generation,
      targets: { vda: image },
    });
    const bytes = rounds.reduce((sum, one) => sum + one.movedBytes, 0);
    console.log(
      `moved: ${bytes} bytes of the disk in ${rounds.length} rounds, ${memoryBytes} of memory, stood still for ${Math.round(pauseMs)} ms`,
    );
  }
}

async function main(folder, times) {
  mkdirSync(folder, { recursive: true });
  makeGuest(folder);
  const guest = new MovingGuest(folder);
  try {
    await guest.start();
    await guest.backUp();
    for (let n = 0; n < times; n++) {
      await guest.move();
      await guest.backUp();
    }
  } finally {
    await guest.stop();
  }
}

const [folder, times = TIMES] = process.argv.slice(2);
if (folder === undefined || !(Number(times) > 0)) {
  console.error('usage: node scripts/guest-moves.mjs FOLDER [TIMES]');
  process.exitCode = 2;
} else await main(resolve(folder), Number(times));
