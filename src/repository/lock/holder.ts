/** Who holds a lock, and whether they can still do so. */
import fs from 'node:fs';
import os from 'node:os';

/** A process, so that it is not taken for another one, before or after a restart of its host. */
export interface Holder {
  /** Its name, and what tells it from others of that name. */
  readonly host: string;
  /** What tells this start of the host from others; empty where nothing does. */
  readonly boot: string;
  /** What tells processes in one container from those in another; empty where nothing does. */
  readonly namespace: string;
  /** Of the process. */
  readonly pid: number;
  /** When the process began, as its system counts; empty where that is not known. */
  readonly started: string;
}

/** This process. */
export function thisHolder(): Holder {
  return {
    host: hostName(),
    boot: text('/proc/sys/kernel/random/boot_id'),
    namespace: link('/proc/self/ns/pid'),
    pid: process.pid,
    started: startOf(process.pid) ?? '',
  };
}

/** Whether a holder lives; `unknown` where that cannot be found out from here. */
export function lifeOf(holder: Holder, here = thisHolder()): 'alive' | 'dead' | 'unknown' {
  if (holder.host !== here.host) return 'unknown';
  if (holder.boot === '' || here.boot === '') return 'unknown';
  if (holder.boot !== here.boot) return 'dead';
  if (holder.namespace !== here.namespace) return 'unknown';
  if (isHidden(holder.pid)) return 'unknown';
  return startOf(holder.pid) === holder.started ? 'alive' : 'dead';
}

/** Whether a process is there that the system does not show, as those of other users where /proc is mounted so. */
function isHidden(pid: number): boolean {
  if (text(`/proc/${pid}/stat`) !== '') return false;
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Machines that were made from one image may have one name. */
function hostName(): string {
  const id = text('/etc/machine-id');
  return id === '' ? os.hostname() : `${os.hostname()} ${id}`;
}

/** When a process began; undefined if it does not exist, or has ended and only waits for its parent to notice. */
function startOf(pid: number): string | undefined {
  // The name of the program stands in parentheses, and may have some too.
  const [, rest] = /^\d+ \(.*\) (.*)$/s.exec(text(`/proc/${pid}/stat`)) ?? [];
  const [state, ...others] = rest?.split(' ') ?? [];
  return state === 'Z' ? undefined : others[18];
}

function text(path: string): string {
  try {
    return fs.readFileSync(path, 'utf8').trim();
  } catch {
    return '';
  }
}

function link(path: string): string {
  try {
    return fs.readlinkSync(path);
  } catch {
    return '';
  }
}
