/**
 * Standard input and output, also where they are a block device or a folder. Node does not know these and puts a stream
 * in their place that holds nothing, or forgets what is written, without an error.
 */
import { createReadStream, createWriteStream } from 'node:fs';
import { Readable, Writable } from 'node:stream';
import type { WriteStream } from 'node:tty';

export function standardInput(): Readable {
  const { stdin } = process;
  if (stdin.constructor !== Readable) return stdin;
  return createReadStream('', { fd: 0, autoClose: false });
}

export function standardOutput(): WriteStream {
  const { stdout } = process;
  if (stdout.constructor !== Writable) return stdout;
  const stream: Writable = createWriteStream('', { fd: 1, autoClose: false });
  // Commander and others print there as well.
  Object.defineProperty(process, 'stdout', { value: stream, configurable: true });
  return stream as WriteStream;
}

/** Node writes to pipes synchronously: nothing would be read, nor a signal heard, while the pipe is full. */
export function withoutBlocking(stream: Writable): Writable {
  (stream as { _handle?: { setBlocking?(on: boolean): void } })._handle?.setBlocking?.(false);
  return stream;
}
