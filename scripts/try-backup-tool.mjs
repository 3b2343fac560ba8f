// Tries a backup tool: does it lose data of a running machine where tools in use were seen to do so? Each trial has a machine
// of its own, without an operating system, to whose disk this script writes in the place of a guest, and a folder for
// the tool to store into; it runs the tool's commands, and compares what is restored with what the disk held.
//
//     npm run build && node scripts/try-backup-tool.mjs --full CMD --increment CMD --restore CMD
//
// Commands are run by /bin/sh. In them
//
//     {store}    is the folder for backups: there, and empty
//     {qmp}      the socket of the machine's monitor (with --libvirt: {uri} and {domain})
//     {disk}     the disk to restore: its device's id, and the name of its node
//     {target}   the file to restore it to, as raw; or {folder}, a folder to restore to, from which the disk's image is taken
//
// For example, Lacuna itself; and a tool for libvirt, on a libvirt of this host, in which it defines domains of its own:
//
//     node scripts/try-backup-tool.mjs --full 'lacuna backup --qmp {qmp} --machine try {store}' \
//       --increment 'lacuna backup --qmp {qmp} --machine try {store}' \
//       --restore 'lacuna restore --disk {disk} -O raw {store} latest {target}'
//     node scripts/try-backup-tool.mjs --libvirt qemu:///system \
//       --full 'virtnbdbackup -U {uri} -d {domain} -l full -o {store}' \
//       --increment 'virtnbdbackup -U {uri} -d {domain} -l inc -o {store}' \
//       --restore 'virtnbdrestore -a restore -i {store} -o {folder}'
//
// --only D1,D4 tries some; --verbose shows what the tool prints. Exit code: 0 nothing was lost, 1 data was lost,
// 2 misuse, 3 something could not be tried, because the tool failed.
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { FAULTS } from './try-backup-tool/faults.mjs';
import { LibvirtMachine, QemuMachine, run } from './try-backup-tool/machines.mjs';

const COMMANDS = ['full', 'increment', 'restore'];
const SHOWN_LOSSES = 4;

class ToolFailed extends Error {}

/** One fault, tried with a machine and a store of its own. */
class Trial {
  constructor(machine, commands, isVerbose) {
    this.machine = machine;
    this.commands = commands;
    this.isVerbose = isVerbose;
    this.store = join(machine.folder, 'store');
  }

  full() {
    return this.#tool('full');
  }

  increment() {
    return this.#tool('increment');
  }

  /** What the tool restores of a disk. */
  async restore(disk) {
    const [target, folder] = ['restored.raw', 'restored'].map((name) =>
      join(this.machine.folder, name),
    );
    rmSync(target, { force: true });
    rmSync(folder, { recursive: true, force: true });
    if (this.commands.restore.includes('{folder}')) mkdirSync(folder);
    await this.#tool('restore', { disk, target, folder });
    const image = existsSync(target) ? target : imageIn(folder, disk);
    return await this.#raw(image, image === target ? 'raw' : undefined);
  }

  /** The same; undefined where the tool says that it fails. */
  async tryToRestore(disk) {
    try {
      return await this.restore(disk);
    } catch (error) {
      if (error instanceof ToolFailed) return undefined;
      // What it has made is no image.
      return Buffer.alloc(0);
    }
  }

  /** What the disk holds, once the machine has ended. */
  live(disk) {
    return this.#raw(this.machine.image(disk), 'qcow2');
  }

  /** Ends the machine, and looks what a restore lacks. */
  async compare(disk, places) {
    await this.machine.end();
    const [restored, live] = [await this.restore(disk), await this.live(disk)];
    if (restored.length < live.length)
      return { lost: [`the end of the disk, from byte ${restored.length}`] };
    return { lost: places.lostIn(restored, live) };
  }

  async #raw(image, format) {
    const copy = join(this.machine.folder, 'compared.raw');
    const from = format === undefined ? [] : ['-f', format];
    await run('qemu-img', 'convert', ...from, '-O', 'raw', image, copy);
    return readFileSync(copy);
  }

  #tool(name, places = {}) {
    const all = {
      ...this.machine.places,
      store: this.store,
      disk: this.machine.disks[0],
      ...places,
    };
    const command = this.commands[name].replaceAll(/\{(\w+)\}/g, (text, key) => all[key] ?? text);
    return new Promise((resolve, reject) => {
      execFile('/bin/sh', ['-c', command], { maxBuffer: 2 ** 26 }, (error, stdout, stderr) => {
        if (this.isVerbose) process.stderr.write(`$ ${command}\n${stdout}${stderr}`);
        if (error === null) resolve();
        else
          reject(
            new ToolFailed(`${command}: ${stderr.trim().split('\n').at(-1) || error.message}`),
          );
      });
    });
  }
}

/** The image of a disk in a folder that a tool has restored to. */
function imageIn(folder, disk) {
  const files = existsSync(folder) ? readdirSync(folder) : [];
  const found = files.find((name) => name.replace(/\.(qcow2|raw|img)$/, '') === disk);
  if (found === undefined)
    throw new ToolFailed(`there is no image of ${disk} in ${folder}: ${files.join(', ')}`);
  return join(folder, found);
}

async function tryFault({ id, title, disks, find }, values, commands) {
  const start = values.libvirt === undefined ? QemuMachine.start : LibvirtMachine.start;
  const machine = await start(disks, values.libvirt);
  try {
    const { lost, tried } = await find(new Trial(machine, commands, values.verbose));
    const verdict = lost.length === 0 ? `nothing lost (${tried})` : `DATA LOST`;
    console.log(`${id}  ${title}: ${verdict}`);
    for (const what of lost.slice(0, SHOWN_LOSSES)) console.log(`      ${what}`);
    if (lost.length > SHOWN_LOSSES) console.log(`      and ${lost.length - SHOWN_LOSSES} more`);
    return lost.length === 0 ? 0 : 1;
  } catch (error) {
    if (!(error instanceof ToolFailed)) throw error;
    console.log(
      `${id}  ${title}: not tried to the end, as the tool failed:\n      ${error.message}`,
    );
    return 3;
  } finally {
    await machine.remove();
  }
}

function misuse(message) {
  console.error(
    `${message}\nusage: node scripts/try-backup-tool.mjs --full CMD --increment CMD --restore CMD [--libvirt URI] [--only D1,D2] [--verbose]`,
  );
  return 2;
}

async function main() {
  let values;
  try {
    ({ values } = parseArgs({
      options: {
        ...Object.fromEntries(COMMANDS.map((name) => [name, { type: 'string' }])),
        libvirt: { type: 'string' },
        only: { type: 'string' },
        verbose: { type: 'boolean', default: false },
      },
    }));
  } catch (error) {
    return misuse(error.message);
  }
  const missing = COMMANDS.find((name) => values[name] === undefined);
  if (missing !== undefined) return misuse(`say --${missing}`);
  const wanted = values.only?.split(',') ?? FAULTS.map(({ id }) => id);
  const unknown = wanted.find((id) => !FAULTS.some((fault) => fault.id === id));
  if (unknown !== undefined) return misuse(`there is no ${unknown}`);
  const codes = [];
  for (const fault of FAULTS) {
    if (wanted.includes(fault.id)) codes.push(await tryFault(fault, values, values));
  }
  return codes.includes(1) ? 1 : Math.max(...codes);
}

process.exitCode = await main();
