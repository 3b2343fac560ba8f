/** A QEMU for the time of a demo, which does nothing but have a disk. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { LacunaError, throwIfAborted } from '../../../errors/index.js';
import type { Monitor } from '../../../qmp/index.js';

/** Programs that can play the machine, and their arguments before those of the monitor. */
const PROGRAMS: readonly { readonly name: string; monitor(socket: string): string[] }[] = [
  {
    name: 'qemu-storage-daemon',
    monitor: (socket) => [
      ...['--chardev', `socket,id=qmp,path=${socket},server=on,wait=off`],
      ...['--monitor', 'chardev=qmp'],
    ],
  },
  ...['qemu-system-x86_64', 'qemu-system-aarch64', '/usr/libexec/qemu-kvm'].map((name) => ({
    name,
    monitor: (socket: string) => [
      ...['-machine', 'none', '-nodefaults', '-no-user-config', '-display', 'none', '-S'],
      ...['-qmp', `unix:${socket},server=on,wait=off`],
    ],
  })),
];

const PAUSE_MS = 20;

/** A QEMU that runs. */
export interface ThrowawayQemu {
  /** The socket of its monitor. */
  readonly socket: string;
  /** What it is, with its version: `qemu-storage-daemon 7.2.22`. */
  readonly name: string;
  /** Does something through its monitor, which only one client at a time can use. */
  through<T>(work: (monitor: Monitor) => Promise<T>): Promise<T>;
  /** Ends it; harmless when it has ended. */
  end(): Promise<void>;
}

/**
 * Starts the first of the programs that is installed.
 *
 * @throws LacunaError ERR_DEVICE_OPEN that says what to install, or what the program says.
 */
export async function startQemu(folder: string, signal: AbortSignal): Promise<ThrowawayQemu> {
  const socket = join(folder, 'qmp');
  for (const program of PROGRAMS) {
    const child = await started(program.name, program.monitor(socket));
    if (child === undefined) continue;
    const kill = () => child.kill('SIGKILL');
    process.once('exit', kill);
    const end = async () => {
      await ended(child);
      process.off('exit', kill);
    };
    const through = async <T>(work: (monitor: Monitor) => Promise<T>): Promise<T> => {
      await using monitor = await connected(child, program.name, socket, signal);
      return await work(monitor);
    };
    try {
      const { major, minor, micro } = await through(async ({ version }) => version);
      return { socket, through, end, name: `${program.name} ${major}.${minor}.${micro}` };
    } catch (error) {
      await end();
      throw error;
    }
  }
  throw new LacunaError(
    'ERR_DEVICE_OPEN',
    'The demo needs a QEMU, and none is installed: apt install qemu-system-common (Debian, Ubuntu), or dnf install qemu-img qemu-kvm-core (Fedora)',
    { errno: 'ENOENT' },
  );
}

/** Undefined where the program is not there. */
async function started(name: string, args: readonly string[]): Promise<ChildProcess | undefined> {
  const child = spawn(name, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  try {
    await once(child, 'spawn');
    return child;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw notStarted(name, error as Error);
  }
}

async function connected(
  child: ChildProcess,
  name: string,
  path: string,
  signal: AbortSignal,
): Promise<Monitor> {
  const { Monitor } = await import('../../../qmp/index.js');
  for (;;) {
    throwIfAborted(signal);
    if (child.exitCode !== null || child.signalCode !== null) {
      throw notStarted(name, new Error(child.stderr!.read()?.toString().trim() || 'it has ended'));
    }
    try {
      return await Monitor.connect({ path }, { signal });
    } catch (error) {
      // It does not listen yet.
      if (!(error instanceof LacunaError) || error.code !== 'ERR_QMP_DISCONNECTED') throw error;
      await sleep(PAUSE_MS);
    }
  }
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  await exited;
}

function notStarted(name: string, cause: Error): LacunaError {
  const what = `${name} cannot be started for the demo: ${cause.message}`;
  return new LacunaError('ERR_DEVICE_OPEN', what, { device: name, cause });
}
