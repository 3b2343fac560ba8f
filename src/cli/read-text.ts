import { readFile } from 'node:fs/promises';
import { LacunaError } from '../errors/index.js';

/**
 * A file that an option names, whole.
 *
 * @param what the option, such as `--tls-key`
 * @throws LacunaError ERR_DEVICE_OPEN
 */
export async function readText(path: string, what: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    const { code: errno, message } = cause as NodeJS.ErrnoException;
    const told = `Cannot read the file of ${what}: ${message}; name a file that can be read`;
    throw new LacunaError('ERR_DEVICE_OPEN', told, {
      device: path,
      cause,
      ...(errno && { errno }),
    });
  }
}
