/** The servers that the bench of graphs races: ours, with and without a graph, and QEMU's. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Monitor } from 'lacuna/qmp';

const SERVER = new URL('./server.mjs', import.meta.url).pathname;
const TICKS_PER_SECOND = 100;

/** What lies between the export and the disk. */
export interface Shape {
  readonly filters: number;
  readonly job: 'none' | 'backup';
}

/** A server of one disk, while it runs. */
export interface DiskServer {
  readonly uri: string;
  /** Milliseconds of processor time that it has taken. */
  cpuMs(): number;
  stop(): Promise<void>;
}

/** Our own, of a graph or of the file itself. */
export function ours(
  folder: string,
  disk: string,
  { kind, filters, job }: Shape & { kind: 'plain' | 'graph' },
): Promise<DiskServer> {
  const socket = join(folder, 'ours.sock');
  const args = [SERVER, disk, socket, kind, String(filters), job];
  return started(process.execPath, args, { socket, name: 'disk' });
}

/** qemu-nbd, which knows neither filters nor jobs. */
export function qemuNbd(folder: string, disk: string): Promise<DiskServer> {
  const socket = join(folder, 'qemu-nbd.sock');
  const args = ['-f', 'raw', '-t', '-e', '4', '-x', 'disk', '-k', socket, disk];
  return started('qemu-nbd', args, { socket, name: 'disk' });
}

/** qemu-storage-daemon, with filters that let everything through and a backup job of the same kind. */
export async function storageDaemon(
  folder: string,
  disk: string,
  { filters, job }: Shape,
): Promise<DiskServer> {
  const [socket, own] = [join(folder, 'qsd.sock'), join(folder, 'qsd.qmp')];
  const names = Array.from({ length: filters }, (_, i) => `filter${i}`);
  const args = [
    ...['--blockdev', `file,node-name=disk,filename=${disk}`],
    ...['--blockdev', `file,node-name=target,filename=${disk}.target`],
    ...names.flatMap((name, i) => [
      ...['--object', `throttle-group,id=group${i},x-iops-total=1000000000`],
      '--blockdev',
      `throttle,node-name=${name},throttle-group=group${i},file=${names[i - 1] ?? 'disk'}`,
    ]),
    ...['--nbd-server', `addr.type=unix,addr.path=${socket}`],
    ...['--export', `nbd,id=e,node-name=${names.at(-1) ?? 'disk'},name=disk,writable=on`],
    ...['--chardev', `socket,id=m,path=${own},server=on,wait=off`, '--monitor', 'chardev=m'],
  ];
  const server = await started('qemu-storage-daemon', args, { socket, name: 'disk' });
  if (job === 'none') return server;
  const monitor = await Monitor.connect({ path: own });
  await monitor.execute('blockdev-backup', {
    ...{ 'job-id': 'job', device: 'disk', target: 'target', sync: 'none' },
  });
  await monitor.close();
  return server;
}

interface Listening {
  readonly socket: string;
  readonly name: string;
}

async function started(
  program: string,
  args: readonly string[],
  { socket, name }: Listening,
): Promise<DiskServer> {
  rmSync(socket, { force: true });
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  while (!(await listens(socket))) {
    if (child.exitCode !== null) throw new Error(`${program} does not start`);
    await sleep(20);
  }
  return {
    uri: `nbd+unix:///${name}?socket=${socket}`,
    cpuMs: () => cpuMsOf(child),
    stop: async () => {
      child.kill('SIGKILL');
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    },
  };
}

function listens(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once('error', () => resolve(false));
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
  });
}

/** User and system time, as the kernel counts them for a process and its threads. */
function cpuMsOf({ pid }: ChildProcess): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return ((Number(fields[11]) + Number(fields[12])) * 1000) / TICKS_PER_SECOND;
}
