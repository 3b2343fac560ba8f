import { exec } from '../support/bench.js';

/** Bytes on disk of a file, or of all in a folder. */
export async function bytesOnDisk(path: string): Promise<number> {
  const { stdout } = await exec('du', ['-s', '--block-size=1', path]);
  return Number.parseInt(stdout, 10);
}
