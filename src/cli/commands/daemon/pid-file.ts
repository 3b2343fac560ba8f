import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readFileSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { LacunaError } from '../../../errors/index.js';

const { O_CREAT, O_EXCL, O_NOFOLLOW = 0, O_WRONLY } = constants;
const MODE = 0o644;

/** A file with the id of this process, for as long as it runs. */
export class PidFile {
  readonly #path: string;
  readonly #inode: number;

  /**
   * Makes the file. One that a process has left behind which is gone is replaced.
   *
   * @throws LacunaError ERR_DEVICE_OPEN where it belongs to a process that runs, or cannot be written.
   */
  static write(path: string): PidFile {
    try {
      if (isLeftBehind(path)) unlinkSync(path);
      const fd = openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, MODE);
      try {
        writeSync(fd, `${process.pid}\n`);
        return new PidFile(path, fstatSync(fd).ino);
      } finally {
        closeSync(fd);
      }
    } catch (cause) {
      if (cause instanceof LacunaError) throw cause;
      const message = `cannot write the pidfile ${path}: ${(cause as Error).message}`;
      throw new LacunaError('ERR_DEVICE_OPEN', message, { device: path, cause });
    }
  }

  private constructor(path: string, inode: number) {
    this.#path = path;
    this.#inode = inode;
  }

  /** Removes it, unless another one has come in its place. */
  remove(): void {
    if (statSync(this.#path, { throwIfNoEntry: false })?.ino === this.#inode)
      unlinkSync(this.#path);
  }
}

/** @throws LacunaError ERR_DEVICE_OPEN where it is the file of a process that runs, or no such file. */
function isLeftBehind(path: string): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return false;
  const text = stat.isFile() && stat.size < 32 ? readFileSync(path, 'utf8').trim() : '';
  const refuse = (why: string) =>
    new LacunaError('ERR_DEVICE_OPEN', `the pidfile ${path} ${why}`, { device: path });
  if (!/^\d+$/.test(text)) throw refuse('is there and has no process id in it: name another file');
  // In a container this process may well have the id of the one that is gone.
  if (Number(text) !== process.pid && isRunning(Number(text)))
    throw refuse(`belongs to process ${text}, which runs: end that first`);
  return true;
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
