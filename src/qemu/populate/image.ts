/** How bits get into QEMU: it opens a small image that has them, or is served one. */
import { openDevice } from '../../block/index.js';
import { LacunaError } from '../../errors/index.js';
import type { NbdServerAddress } from '../../nbd/index.js';
import type { Monitor } from '../../qmp/index.js';
import { createServer } from '../../serve/index.js';
import type { SessionNames } from '../state/index.js';

/** The number of the image in the names of a session. */
const IMAGE = 0;
const EXPORT = 'bits';

export interface HandedImage {
  /** The node that has the bitmap. */
  readonly node: string;
  /** To be called when QEMU has let go of the node. */
  readonly close: () => Promise<void>;
}

/** Lets QEMU open an image for reading; for writing it would take a lock that nobody has to give. */
export async function handImage(
  monitor: Monitor,
  names: SessionNames,
  file: string,
  serve: NbdServerAddress | undefined,
): Promise<HandedImage> {
  const served = serve === undefined ? undefined : await serveImage(file, serve);
  const source =
    served === undefined
      ? { driver: 'file', filename: file }
      : { driver: 'nbd', server: served.address, export: EXPORT };
  const node = names.scratch(IMAGE);
  try {
    await monitor.execute('blockdev-add', {
      driver: 'qcow2',
      'node-name': node,
      'read-only': true,
      file: { ...source, 'node-name': names.scratchFile(IMAGE), 'read-only': true },
      backing: null,
    });
  } catch (error) {
    await served?.close();
    if (served !== undefined || !isRefusal(error)) throw error;
    const { device, errno, description } = error;
    throw new LacunaError(
      'ERR_QMP_COMMAND',
      `${error.message}. If QEMU may not open files there, let this process serve the bits to it (serve)`,
      { device, errno, description, cause: error },
    );
  }
  return { node, close: async () => await served?.close() };
}

function isRefusal(error: unknown): error is LacunaError {
  return error instanceof LacunaError && error.code === 'ERR_QMP_COMMAND';
}

async function serveImage(file: string, where: NbdServerAddress) {
  const device = await openDevice({ driver: 'file', filename: file });
  const server = await createServer({ exports: [{ name: EXPORT, device }], threads: 0 });
  const close = async () => {
    await server.close();
    await device.close();
  };
  try {
    const address = await server.listen(where);
    // QEMU has the numbers of ports as strings.
    const port = 'port' in address && { port: String(address.port) };
    return { address: { ...address, ...port }, close };
  } catch (error) {
    await close();
    throw error;
  }
}
