import { writeSync } from 'node:fs';
import { Writable } from 'node:stream';

/**
 * Leaves the standard streams as they are. A program that hands a socket over and goes on, such as nbdcopy, shares them
 * with this process; what Node opens for them makes pipes non-blocking, for that program as well.
 */
export function leaveStandardStreams(): void {
  for (const [name, fd] of [
    ['stdout', 1],
    ['stderr', 2],
  ] as const) {
    Object.defineProperty(process, name, { value: streamOf(fd), configurable: true });
  }
}

function streamOf(fd: number): Writable {
  return new Writable({
    decodeStrings: true,
    write(bytes: Buffer, _encoding, done) {
      try {
        for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
        done();
      } catch (error) {
        done(error as Error);
      }
    },
  });
}
