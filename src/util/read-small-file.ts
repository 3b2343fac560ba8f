/** Files that are small by their nature: keys, certificates, a digest, a rate. */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ErrorCode, LacunaError } from '../errors/index.js';
import { describeRefusal } from './refusal.js';

/** Longer ones hold something else. */
const LONGEST = 1024 * 1024;

const TOO_LONG = 'it is longer than 1 MiB: name the right file';

/** Between looks at a pipe that is empty for now. */
const PAUSE_MS = 10;

/**
 * Reads all of a small file, or of a pipe that somebody writes to, such as `<(command)` in a shell. It never waits for
 * somebody who is not there.
 *
 * @param what for messages, such as `the file of --check,`
 * @throws LacunaError with this code, where it cannot be read, is too long, or is something else.
 */
export async function readSmallFile(
  path: string,
  { code, what }: { code: ErrorCode; what: string },
): Promise<Buffer> {
  const request = `Cannot read ${what} ${path}`;
  const refuse = (why: string) => new LacunaError(code, `${request}: ${why}`, { device: path });
  try {
    // Opening a FIFO would otherwise wait, in a thread that nothing can stop.
    await using file = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
    const stats = await file.stat();
    if (stats.isFIFO()) return await readPipe(file, refuse);
    if (stats.isBlockDevice() || stats.isCharacterDevice())
      throw refuse('it is a device: name a file');
    if (stats.size > LONGEST) throw refuse(TOO_LONG);
    return await file.readFile();
  } catch (cause) {
    if (cause instanceof LacunaError) throw cause;
    const { code: errno = String(cause) } = cause as NodeJS.ErrnoException;
    throw new LacunaError(code, describeRefusal(request, errno), { cause, errno, device: path });
  }
}

/** Reads until its writers are gone. */
async function readPipe(file: FileHandle, refuse: (why: string) => LacunaError): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for (let hasWriter = false; ; ) {
    const chunk = await file.read().catch((error: NodeJS.ErrnoException) => error);
    if (chunk instanceof Error) {
      if (chunk.code !== 'EAGAIN') throw chunk;
      hasWriter = true;
      await sleep(PAUSE_MS);
      continue;
    }
    const { bytesRead, buffer } = chunk;
    if (bytesRead === 0) {
      if (hasWriter || length > 0) return Buffer.concat(chunks);
      throw refuse(
        'it is a pipe (FIFO) that nobody writes to: start the writer first, or name a file',
      );
    }
    chunks.push(buffer.subarray(0, bytesRead));
    length += bytesRead;
    if (length > LONGEST) throw refuse(TOO_LONG);
  }
}
