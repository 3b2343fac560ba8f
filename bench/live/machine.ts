/** A machine to back up: a QEMU with one disk of 1 TiB, and a guest that writes to it and notes how long each write takes. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { NbdClient } from 'lacuna/nbd';
import { Monitor } from 'lacuna/qmp';
import { exec } from '../support/bench.js';

const MIB = 2 ** 20;
const TICKS_PER_SECOND = 100;
const GUEST_WRITE = 4096;
/** Between two writes of the guest, as of a machine that is not idle and not at its limit. */
const GUEST_PAUSE_MS = 2;

/** A guest that writes until it is told to end; then milliseconds of each write. */
export interface WritingGuest {
  end(): Promise<number[]>;
}

/** A machine to back up. */
export interface LiveMachine {
  /** Bytes of its disk. */
  readonly size: number;
  /** Writes bytes of a seed over ranges of 1 MiB at these offsets. */
  fill(offsets: readonly number[], seed: number): Promise<void>;
  /** Writes one block after another within these ranges. */
  writing(offsets: readonly number[]): WritingGuest;
  /** Seconds of processor time that QEMU has taken. */
  processorSeconds(): number;
  /** Makes what was written visible, and says how `qemu-img compare` reads the disk. */
  live(): Promise<string[]>;
  stop(): Promise<void>;
}

/** Seconds of processor time that a process has taken. */
export function processorSecondsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // Behind the name, which may have spaces: state is the third field, utime the 14th.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** Writes one block after another within these ranges, with a pause after each, until it is told to end. */
export function writingGuest(
  offsets: readonly number[],
  write: (offset: number, length: number) => Promise<void>,
): WritingGuest {
  let isOver = false;
  const times: number[] = [];
  const done = (async () => {
    for (let n = 0; !isOver; n++) {
      const started = performance.now();
      const range = offsets[(n * 7919) % offsets.length];
      await write(range + GUEST_WRITE * (n % (MIB / GUEST_WRITE)), GUEST_WRITE);
      times.push(performance.now() - started);
      await sleep(GUEST_PAUSE_MS);
    }
  })();
  return {
    end: async () => {
      isOver = true;
      await done;
      return times;
    },
  };
}

export class BenchMachine implements LiveMachine {
  readonly monitorPath: string;
  readonly nbd: { type: 'unix'; path: string };
  readonly size: number;
  #child!: ChildProcess;
  #guest!: NbdClient;
  monitor!: Monitor;

  static async start(folder: string, size: number): Promise<BenchMachine> {
    const machine = new BenchMachine(folder, size);
    await machine.#start(join(folder, 'disk.qcow2'), join(folder, 'own'));
    return machine;
  }

  private constructor(folder: string, size: number) {
    this.monitorPath = join(folder, 'qmp');
    this.nbd = { type: 'unix', path: join(folder, 'nbd') };
    this.size = size;
  }

  async #start(image: string, own: string): Promise<void> {
    await exec('qemu-img', ['create', '-q', '-f', 'qcow2', image, String(this.size)]);
    const monitors = [this.monitorPath, own].flatMap((path, i) => [
      ...['--chardev', `socket,id=m${i},path=${path},server=on,wait=off`],
      ...['--monitor', `chardev=m${i}`],
    ]);
    this.#child = spawn(
      'qemu-storage-daemon',
      [
        ...['--blockdev', `file,node-name=file,filename=${image},discard=unmap`],
        ...['--blockdev', 'qcow2,node-name=vda,file=file,discard=unmap'],
        ...['--nbd-server', `addr.type=unix,addr.path=${this.nbd.path}`],
        ...['--export', 'nbd,id=guest,node-name=vda,name=vda,writable=on'],
        ...monitors,
      ],
      { stdio: ['ignore', 'ignore', 'inherit'] },
    );
    while (this.monitor === undefined) {
      if (this.#child.exitCode !== null) throw new Error('qemu-storage-daemon does not start');
      const monitor = await Monitor.connect({ path: own }).catch(() => sleep(20));
      if (monitor) this.monitor = monitor;
    }
    this.#guest = await NbdClient.connect({ server: this.nbd, export: 'vda' });
  }

  processorSeconds(): number {
    return processorSecondsOf(this.#child.pid!);
  }

  async live(): Promise<string[]> {
    return ['-f', 'raw', `nbd+unix:///vda?socket=${this.nbd.path}`];
  }

  async fill(offsets: readonly number[], seed: number): Promise<void> {
    const bytes = Buffer.alloc(MIB);
    for (let at = 0, x = seed | 1; at < MIB; at += 4) {
      x ^= x << 13;
      x ^= x >>> 17;
      x ^= x << 5;
      bytes.writeInt32LE(x, at);
    }
    for (const offset of offsets) {
      bytes.writeDoubleLE(offset, 0);
      await this.#guest.write(offset, bytes);
    }
    await this.#guest.flush();
  }

  writing(offsets: readonly number[]): WritingGuest {
    const bytes = Buffer.alloc(GUEST_WRITE, 1);
    return writingGuest(offsets, (offset) => this.#guest.write(offset, bytes));
  }

  async stop(): Promise<void> {
    await this.#guest.close();
    await this.monitor.close();
    const exited = once(this.#child, 'exit');
    this.#child.kill();
    await exited;
  }
}
