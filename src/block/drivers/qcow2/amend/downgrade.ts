/** What version 2 of the format does not have. */
import {
  geometryOf,
  type Header,
  Incompatible,
  readMapped,
  type Snapshot,
  unsupported,
  validBitmaps,
} from '../../../../qcow2/index.js';
import { viewOf } from '../../../../util/index.js';
import type { BlockDevice } from '../../../contract/index.js';
import { readHeader, readSnapshots } from '../io/index.js';
import { References, rebuildRefcounts } from '../repair/index.js';
import { ImageWriter } from '../write/index.js';

/** The only width of a refcount in version 2, as a power of two. */
const REFCOUNT_ORDER = 4;

/**
 * Lets an image of version 3 have nothing that version 2 has not; its disk stays the same.
 *
 * @throws LacunaError ERR_QCOW2_UNSUPPORTED where that cannot be done in place; nothing is changed then.
 */
export async function prepareVersion2(
  file: BlockDevice,
  header: Header,
  signal: AbortSignal | undefined,
): Promise<void> {
  const found = featureOf(header);
  if (found !== undefined) throw refused(file.name, found);
  const references = await References.open(file, header, signal);
  for (const snapshot of await readSnapshots(file, header)) {
    if (snapshot.size !== header.size) {
      throw refused(file.name, `snapshot "${snapshot.name}" of a disk of another size`);
    }
    if (await hasZeroes(references, snapshot, header, file.name)) {
      throw refused(
        file.name,
        `snapshot "${snapshot.name}" with clusters that are said to be zero`,
      );
    }
  }
  // Something may shine through anywhere, as only opening what lies below would tell how long that is.
  const backingSize = header.backingFile === undefined ? 0 : Number.POSITIVE_INFINITY;
  const writer = await ImageWriter.open({ header, file, backingSize }, async () => {
    throw new Error('whole clusters are written, so that nothing is read');
  });
  await writer.spellZeroes(signal);
  if (header.extensions.bitmaps === undefined) return;
  // They are not valid, and nobody will know of their clusters any more; some may be used for something else by now.
  await rebuildRefcounts(file, await readHeader(file), { leaksOnly: true, signal });
}

export function asVersion2(header: Header): Header {
  return {
    ...header,
    version: 2,
    incompatible: 0n,
    compatible: 0n,
    autoclear: 0n,
    additional: new Uint8Array(0),
    extensions: { ...header.extensions, featureNames: [], bitmaps: undefined },
  };
}

/** What of the header version 2 has not. */
function featureOf(header: Header): string | undefined {
  const { incompatible, refcountOrder } = header;
  if ((incompatible & Incompatible.dataFile) !== 0n) return 'a data file';
  if ((incompatible & Incompatible.extendedL2) !== 0n) return 'subclusters (extended_l2)';
  if (header.compression !== 'deflate') return `compression by ${header.compression}`;
  if (refcountOrder !== REFCOUNT_ORDER) return `refcounts of ${2 ** refcountOrder} bits`;
  return validBitmaps(header) === undefined ? undefined : 'bitmaps, which would be lost';
}

function refused(image: string, found: string) {
  const needed = `has ${found}, and version 2 has no such thing`;
  return unsupported(image, needed, 'copy the disk into an image of that version (-o compat=0.10)');
}

async function hasZeroes(
  references: References,
  { l1Offset: offset, l1Size: entries }: Snapshot,
  header: Header,
  image: string,
): Promise<boolean> {
  const geometry = geometryOf(header);
  const rules = { geometry, version: header.version, dataFile: false, image };
  for await (const { offset: at, bytes } of references.tablesAt({ offset, entries })) {
    const view = viewOf(bytes);
    for (let entry = 0; entry < bytes.length; entry += geometry.l2EntryBytes) {
      if (view.getUint32(entry) === 0 && view.getUint32(entry + 4) === 0) continue;
      if (readMapped(bytes, entry, rules, at).zero !== 0) return true;
    }
  }
  return false;
}
