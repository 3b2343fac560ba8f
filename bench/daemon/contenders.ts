/** The two daemons, started by the same arguments. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const TICKS_PER_SECOND = 100;
/** So long a daemon has nothing to do before its memory is looked at. */
const REST_MS = 1000;

export type Format = 'raw' | 'qcow2';

/** A daemon that serves a disk, while it runs. */
export interface RunningDaemon {
  readonly uri: string;
  /** Milliseconds of processor time that it has taken. */
  cpuMs(): number;
  /** Bytes of memory that it takes when it has nothing to do. */
  restingBytes(): Promise<number>;
  stop(): Promise<void>;
}

/** Starts one, and waits until clients may connect. */
export async function startDaemon(
  kind: 'lacuna daemon' | 'qemu-storage-daemon',
  folder: string,
  disk: string,
  format: Format,
): Promise<RunningDaemon> {
  const [socket, pidFile] = [join(folder, 'daemon.nbd'), join(folder, 'daemon.pid')];
  for (const left of [socket, pidFile]) rmSync(left, { force: true });
  const [program, ...before] =
    kind === 'lacuna daemon' ? [process.execPath, MAIN, 'daemon'] : [kind];
  const args = [
    ...['--blockdev', `driver=file,node-name=file,filename=${disk}`],
    ...['--blockdev', `driver=${format},node-name=disk,file=file`],
    ...['--nbd-server', `addr.type=unix,addr.path=${socket}`],
    ...['--export', 'type=nbd,id=e,node-name=disk,name=disk,writable=on', '--pidfile', pidFile],
  ];
  const child = spawn(program, [...before, ...args], { stdio: ['ignore', 'ignore', 'inherit'] });
  // It is written when all is served.
  while (!existsSync(pidFile)) {
    if (child.exitCode !== null) throw new Error(`${kind} does not start`);
    await sleep(2);
  }
  return {
    uri: `nbd+unix:///disk?socket=${socket}`,
    cpuMs: () => cpuMsOf(child),
    restingBytes: async () => {
      await sleep(REST_MS);
      return residentBytes(child);
    },
    stop: async () => {
      child.kill('SIGTERM');
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    },
  };
}

/** User and system time, as the kernel counts them for a process and its threads. */
function cpuMsOf({ pid }: ChildProcess): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return ((Number(fields[11]) + Number(fields[12])) * 1000) / TICKS_PER_SECOND;
}

function residentBytes({ pid }: ChildProcess): number {
  const [, kib] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Number(kib) * 1024;
}
