import { readSmallFile } from '../../util/index.js';

/**
 * A small file that an option names, whole; or what somebody writes to a pipe.
 *
 * @param what the option, such as `--tls-key`
 * @throws LacunaError ERR_DEVICE_OPEN
 */
export async function readText(path: string, what: string): Promise<string> {
  const request = { code: 'ERR_DEVICE_OPEN', what: `the file of ${what},` } as const;
  return (await readSmallFile(path, request)).toString('utf8');
}
