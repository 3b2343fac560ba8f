import { fileOperations, Replacement, sweep, syncFolder } from '../../files/index.js';

/**
 * Stores a text in place of what a file held, durably: whatever happens, it holds the one or the other.
 *
 * @returns warnings: what could not be kept of the old file.
 * @throws what the system says
 */
export async function storeText(path: string, text: string): Promise<string[]> {
  sweep(path);
  const file = Replacement.create(path);
  try {
    fileOperations.write(file.fd, Buffer.from(text), 0);
    fileOperations.sync(file.fd);
    const warnings = file.finish();
    await syncFolder(file.name);
    return warnings;
  } catch (error) {
    file.removeUnfinished();
    throw error;
  } finally {
    file.close();
  }
}
