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

export class BenchMachine {
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

  /** Seconds of processor time that QEMU has taken. */
  processorSeconds(): number {
    const stat = readFileSync(`/proc/${this.#child.pid}/stat`, 'utf8');
    // Behind the name, which may have spaces: state is the third field, utime the 14th.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
  }

  /** Writes bytes of a seed over ranges of 1 MiB at these offsets. */
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

  /** Writes one block after another within these ranges until it is told to end; milliseconds of each. */
  writing(offsets: readonly number[]): { end(): Promise<number[]> } {
    let isOver = false;
    const times: number[] = [];
    const bytes = Buffer.alloc(GUEST_WRITE, 1);
    const done = (async () => {
      for (let n = 0; !isOver; n++) {
        const started = performance.now();
        const range = offsets[(n * 7919) % offsets.length];
        await this.#guest.write(range + GUEST_WRITE * (n % (MIB / GUEST_WRITE)), bytes);
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

  async stop(): Promise<void> {
    await this.#guest.close();
    await this.monitor.close();
    const exited = once(this.#child, 'exit');
    this.#child.kill();
    await exited;
  }
}
