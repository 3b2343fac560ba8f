import { LacunaError } from '../errors/index.js';
import { fileError } from './file-error.js';
import { sweep } from './leftovers.js';
import { fileOperations, syncFolder } from './operations.js';
import { Replacement } from './replacement.js';

/**
 * Stores a small file in place of what its name held, durably: whatever happens, the name holds the one or the other. What
 * processes that died have left of it is removed.
 *
 * @param action what is done, for messages: `store the digest in`
 * @returns warnings: what could not be kept of the old file
 * @throws LacunaError ERR_DEVICE_OPEN
 */
export async function storeFile(action: string, path: string, content: string): Promise<string[]> {
  let file: Replacement | undefined;
  sweep(path);
  try {
    file = Replacement.create(path);
    fileOperations.write(file.fd, Buffer.from(content), 0);
    fileOperations.sync(file.fd);
    const warnings = file.finish();
    await syncFolder(file.name);
    return warnings;
  } catch (error) {
    file?.removeUnfinished();
    if (error instanceof LacunaError) throw error;
    throw fileError('ERR_DEVICE_OPEN', { action, device: path, making: true }, error as Error);
  } finally {
    file?.close();
  }
}
