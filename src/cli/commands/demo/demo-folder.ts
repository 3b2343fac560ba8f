import { rmSync } from 'node:fs';
import { mkdtemp, rm, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LacunaError } from '../../../errors/index.js';
import { fileError } from '../../../files/index.js';
import { formatBytes } from '../../text/index.js';

/** A folder for the time of a demo. */
export interface DemoFolder {
  readonly path: string;
  remove(): Promise<void>;
}

/**
 * Makes a folder with room for `needBytes`, in `parent` or where the system keeps temporary files. It goes
 * away with the process at the latest, unless it is to be kept.
 */
export async function makeDemoFolder(options: {
  parent?: string | undefined;
  needBytes: number;
  keep: boolean;
}): Promise<DemoFolder> {
  const parent = options.parent ?? tmpdir();
  await checkSpace(parent, options.needBytes);
  const path = await mkdtemp(join(parent, 'lacuna-demo-')).catch((error: Error) => {
    throw notUsed(parent, error);
  });
  if (options.keep) return { path, remove: async () => {} };
  const removeNow = () => rmSync(path, { recursive: true, force: true });
  process.once('exit', removeNow);
  return {
    path,
    remove: async () => {
      await rm(path, { recursive: true, force: true });
      process.off('exit', removeNow);
    },
  };
}

async function checkSpace(folder: string, needBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder).catch((error: Error) => {
    throw notUsed(folder, error);
  });
  const freeBytes = bavail * bsize;
  if (freeBytes >= needBytes) return;
  const amounts = `${formatBytes(needBytes)} free, and there are ${formatBytes(freeBytes)}`;
  throw new LacunaError(
    'ERR_DEVICE_IO',
    `The demo needs ${amounts} in ${folder}; name another --folder, or a smaller --size`,
    { device: folder, errno: 'ENOSPC' },
  );
}

function notUsed(folder: string, error: Error): LacunaError {
  const request = { action: 'make the disks of the demo in', device: folder, making: true };
  return fileError('ERR_DEVICE_OPEN', request, error);
}
