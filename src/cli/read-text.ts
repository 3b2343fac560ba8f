import { readFile } from 'node:fs/promises';
import { fileError } from '../files/index.js';

/**
 * A file that an option names, whole.
 *
 * @param what the option, such as `--tls-key`
 * @throws LacunaError ERR_DEVICE_OPEN
 */
export async function readText(path: string, what: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    const request = { action: `read the file of ${what},`, device: path };
    throw fileError('ERR_DEVICE_OPEN', request, error as Error);
  }
}
