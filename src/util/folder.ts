import { open } from 'node:fs/promises';

/**
 * Makes the names in a folder durable. Syncing a file saves its bytes, but the entry that leads to a new or
 * renamed file is part of the folder.
 */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
