import { LacunaError } from '../../../../errors/index.js';
import {
  Compatible,
  encodeHeader,
  type Header,
  hasLazyRefcounts,
  unsupported,
} from '../../../../qcow2/index.js';
import type { BlockDevice } from '../../../contract/index.js';
import { checkWritable } from '../in-place/index.js';
import { HostFile, LiveHeader, readHeader, writeBackingName, writeHeader } from '../io/index.js';
import { repairRefcounts } from '../repair/index.js';
import { ImageTables } from '../snapshots/index.js';
import { asVersion2, prepareVersion2 } from './downgrade.js';

/** What is changed of an image in place; what is left out stays as it is. */
export interface Amendment {
  readonly version?: 2 | 3 | undefined;
  readonly lazyRefcounts?: boolean | undefined;
  readonly backingFormat?: string | undefined;
}

/**
 * Changes what the header of an image says of it. After a crash each of the changes was made or not.
 *
 * @param file the image's own, open for writing.
 * @returns the header as it is then.
 * @throws LacunaError ERR_QCOW2_UNSUPPORTED where the image has what the version that is wanted has not, or has no backing
 * file; ERR_QCOW2_CORRUPT, ERR_ABORTED. Nothing that the disk shows has changed then.
 */
export async function amendHeader(
  file: BlockDevice,
  { version, lazyRefcounts, backingFormat }: Amendment,
  signal: AbortSignal | undefined,
): Promise<Header> {
  let header = await repairRefcounts(file, await readHeader(file), signal);
  checkWritable(header, file.name);
  checkLazy(header, version ?? header.version, lazyRefcounts, file.name);
  if (backingFormat !== undefined) checkBacking(header, backingFormat, file.name);
  if (version === 2 && header.version === 3) {
    await prepareVersion2(file, header, signal);
    // That may have moved tables.
    header = await readHeader(file);
  }
  const host = new HostFile(file);
  if (version === 3 && header.version === 2) header = await upgrade(file, host, signal);
  if (lazyRefcounts !== undefined) header = await setLazy(host, header, lazyRefcounts);
  if (backingFormat !== undefined && backingFormat !== header.extensions.backingFormat) {
    const backing = { filename: header.backingFile!, format: backingFormat };
    header = await writeBackingName(host, header, backing);
  }
  if (version === 2 && header.version === 3) header = await downgrade(file, host);
  return header;
}

function checkLazy(
  header: Header,
  version: 2 | 3,
  lazyRefcounts: boolean | undefined,
  image: string,
): void {
  if (version === 3) return;
  const isLazy = hasLazyRefcounts(header);
  if (lazyRefcounts !== true && !(isLazy && lazyRefcounts === undefined)) return;
  const needed = 'would have lazy refcounts in version 2, which does not know them';
  throw unsupported(image, needed, 'amend it with lazy_refcounts=off, or to version 3');
}

/** Snapshots may show what lies below, and nobody can tell what they should show. */
function checkBacking(
  { backingFile, extensions, snapshotCount }: Header,
  to: string,
  image: string,
) {
  if (backingFile === undefined) {
    const needed = 'has no backing file whose format could be said';
    throw unsupported(image, needed, 'name one with "lacuna rebase"');
  }
  const { backingFormat: from } = extensions;
  if (from === undefined || from === to || snapshotCount === 0) return;
  const message = `${image} has snapshots, which may show something else over a backing file that is read as ${to} instead of ${from}: copy them into images of their own, and delete them`;
  throw new LacunaError('ERR_IMAGE_CHAIN', message, { device: image });
}

async function setLazy(host: HostFile, header: Header, isLazy: boolean): Promise<Header> {
  const others = header.compatible & ~Compatible.lazyRefcounts;
  const compatible = isLazy ? others | Compatible.lazyRefcounts : others;
  if (compatible === header.compatible) return header;
  const live = new LiveHeader(host, header);
  await live.update({ compatible });
  return live.current;
}

/** Snapshots of version 3 say how large the disk was, which those of version 2 need not. */
async function upgrade(
  file: BlockDevice,
  host: HostFile,
  signal: AbortSignal | undefined,
): Promise<Header> {
  const tables = await ImageTables.open(file, signal);
  if (tables.snapshots.length > 0) {
    await tables.change(() => tables.nameSnapshots(tables.snapshots));
  }
  const { current } = tables.header;
  const header: Header = { ...current, version: 3 };
  return rewrite(host, header);
}

async function downgrade(file: BlockDevice, host: HostFile): Promise<Header> {
  return rewrite(host, asVersion2(await readHeader(file)));
}

/** All but the name of the backing file changes with one sector. */
async function rewrite(host: HostFile, header: Header): Promise<Header> {
  const name = Buffer.byteLength(header.backingFile ?? '');
  const bytes = encodeHeader(header, host.name).length - name;
  if (bytes > host.unit) {
    const needed = `needs ${bytes} bytes of header in another version, which cannot be written at once`;
    throw unsupported(host.name, needed, 'copy the disk into an image of that version');
  }
  await writeHeader(host, header);
  return header;
}
