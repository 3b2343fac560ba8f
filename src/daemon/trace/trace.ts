import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { closeSync, constants, fstatSync, openSync, writeSync } from 'node:fs';
import type { DeviceRequestMessage } from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import type { JobMessage } from '../../job/index.js';
import type { NbdClientMessage, NbdRequestMessage } from '../../nbd/index.js';
import { describeRefusal } from '../../util/index.js';
import { jobLine, nbdClientLine, nbdRequestLine, requestLine } from './lines.js';

const { O_APPEND, O_CREAT, O_NOFOLLOW = 0, O_NONBLOCK = 0, O_WRONLY } = constants;
const OWNER_ONLY = 0o600;
/** So much is gathered before it is written, and for so long. */
const MOST_CHARACTERS = 64 * 1024;
const WRITE_MS = 200;

/** Writes what this thread tells of requests, clients and jobs (docs/diagnostics.md) into a file. */
export class Trace {
  readonly #file: string;
  readonly #fd: number;
  readonly #failed: (error: LacunaError) => void;
  readonly #timer: NodeJS.Timeout;
  #lines: string[] = [];
  #characters = 0;
  #isOpen = true;

  /**
   * Begins.
   *
   * @param failed hears why nothing more is traced.
   * @throws LacunaError ERR_DEVICE_OPEN
   */
  static open(file: string, failed: (error: LacunaError) => void): Trace {
    return new Trace(file, openTrace(file), failed);
  }

  private constructor(file: string, fd: number, failed: (error: LacunaError) => void) {
    this.#file = file;
    this.#fd = fd;
    this.#failed = failed;
    this.#timer = setInterval(() => this.#write(), WRITE_MS).unref();
    for (const [name, heed] of this.#channels) subscribe(name, heed);
  }

  /** Writes what was gathered, and ends. Closing again is harmless. */
  close(): void {
    this.#write();
    this.#end();
  }

  /** What waits is bounded: it is written here, and who is traced waits for that. */
  #add(line: object): void {
    const text = JSON.stringify({ time: new Date().toISOString(), ...line });
    this.#lines.push(text);
    this.#characters += text.length;
    if (this.#characters >= MOST_CHARACTERS) this.#write();
  }

  #write(): void {
    if (!this.#isOpen || this.#lines.length === 0) return;
    const bytes = Buffer.from(`${this.#lines.join('\n')}\n`);
    this.#lines = [];
    this.#characters = 0;
    try {
      for (let at = 0; at < bytes.length; ) at += writeSync(this.#fd, bytes, at);
    } catch (cause) {
      this.#end();
      const { message } = cause as Error;
      const why = `the trace ${this.#file} cannot be written (${message}): nothing more is traced`;
      this.#failed(new LacunaError('ERR_DEVICE_IO', why, { device: this.#file, cause }));
    }
  }

  #end(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    clearInterval(this.#timer);
    for (const [name, heed] of this.#channels) unsubscribe(name, heed);
    try {
      closeSync(this.#fd);
    } catch {
      // What a file system tells only now is of lines that are written already.
    }
  }

  readonly #channels: readonly (readonly [string, (message: unknown) => void])[] = [
    [
      'lacuna:device:request',
      (message) => {
        const { node } = message as DeviceRequestMessage;
        if (node !== undefined) this.#add(requestLine(message as DeviceRequestMessage));
      },
    ],
    [
      'lacuna:nbd-server:request',
      (message) => this.#add(nbdRequestLine(message as NbdRequestMessage)),
    ],
    [
      'lacuna:nbd-server:client',
      (message) => this.#add(nbdClientLine(message as NbdClientMessage)),
    ],
    ['lacuna:job', (message) => this.#add(jobLine(message as JobMessage))],
  ];
}

function openTrace(file: string): number {
  let fd: number | undefined;
  try {
    // What is no regular file may hold up who writes it.
    const flags = O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK;
    fd = openSync(file, flags, OWNER_ONLY);
    if (fstatSync(fd).isFile()) return fd;
  } catch (cause) {
    const { code: errno = '' } = cause as NodeJS.ErrnoException;
    const message = describeRefusal(`cannot open the trace ${file}`, errno, { making: true });
    throw new LacunaError('ERR_DEVICE_OPEN', message, { device: file, cause, errno });
  }
  closeSync(fd);
  const message = `the trace ${file} is no regular file: name another one`;
  throw new LacunaError('ERR_DEVICE_OPEN', message, { device: file });
}
