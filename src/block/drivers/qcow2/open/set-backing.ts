import type { BackingName, BlockDevice } from '../../../contract/index.js';
import { checkWritable } from '../in-place/index.js';
import { HostFile, readHeader, writeBackingName } from '../io/index.js';
import { repairRefcounts } from '../repair/index.js';

/**
 * Makes an image that nobody has open name another backing file, or none, durably.
 *
 * @param file the image's own, open for writing.
 * @throws LacunaError ERR_QCOW2_UNSUPPORTED where the name does not fit into the first cluster.
 */
export async function setBackingFile(
  file: BlockDevice,
  backing: BackingName | null,
): Promise<void> {
  const header = await repairRefcounts(file, await readHeader(file));
  checkWritable(header, file.name);
  await writeBackingName(new HostFile(file), header, backing);
}
