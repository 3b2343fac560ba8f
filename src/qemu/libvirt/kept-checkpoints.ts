/**
 * Checkpoints of transient domains. libvirt forgets them when the domain ends, though their bitmaps stay in the images; so what it
 * said of them is kept in a file beside the sessions, and is told to it again.
 */
import fs from 'node:fs';
import { join } from 'node:path';
import { storeFile } from '../../files/index.js';
import { checkpointOf } from '../state/index.js';
import type { Domain } from './domain.js';

/** Keeps the checkpoint of a generation, where libvirt may forget it. */
export async function keepCheckpoint(
  domain: Domain,
  folder: string,
  generation: string,
): Promise<void> {
  if (!(await domain.isTransient())) return;
  const text = await domain.checkpointXml(checkpointOf(generation));
  await storeFile('keep the checkpoint in', fileOf(domain, folder, generation), text);
}

/**
 * Tells libvirt again of the checkpoint of a generation, where it has forgotten it and we have not.
 *
 * @returns a warning where that fails, because the bitmaps are gone, say; then the next backup is full.
 */
export async function restoreCheckpoint(
  domain: Domain,
  folder: string,
  generation: string,
): Promise<string[]> {
  const file = fileOf(domain, folder, generation);
  if (!fs.existsSync(file) || !(await domain.isRunning())) return [];
  if ((await domain.checkpoints()).includes(checkpointOf(generation))) return [];
  try {
    await domain.redefine(file);
    return [];
  } catch (error) {
    return [`the checkpoint of the last backup cannot be used: ${(error as Error).message}`];
  }
}

/** Forgets what was kept; harmless where nothing was. */
export function dropCheckpoint(domain: Domain, folder: string, generation: string): void {
  fs.rmSync(fileOf(domain, folder, generation), { force: true });
}

function fileOf({ uuid }: Domain, folder: string, generation: string): string {
  return join(folder, `${uuid}.${checkpointOf(generation)}.xml`);
}
