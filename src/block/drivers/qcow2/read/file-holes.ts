import { statSync } from 'node:fs';
import { type ExtentList, Status } from '../../../../extent/index.js';
import { countReferenced, readRefcountTableEntry } from '../../../../qcow2/index.js';
import { viewOf } from '../../../../util/index.js';
import type { BlockDevice } from '../../../contract/index.js';
import { readPadded } from '../io/index.js';
import type { Image } from './image.js';

/**
 * The holes of the file that clusters lie in. An image with preallocated metadata calls everything data, and its file
 * knows better; of other images it has next to nothing to add, and would only break long runs into short ones.
 */
export class FileHoles {
  readonly #list: ExtentList;

  private constructor(list: ExtentList) {
    this.#list = list;
  }

  /** Undefined where the file cannot tell, or holds what the image says that it holds. */
  static async look(image: Image): Promise<FileHoles | undefined> {
    const { file, data } = image;
    if (data !== file || !file.capabilities.exactStatus || file.size === 0) return undefined;
    if (!(await isPreallocated(image))) return undefined;
    const [list] = await file.someExtents(0, file.size);
    return new FileHoles(list);
  }

  /** Adds the status of bytes of the file: zero where it has a hole, else data. */
  pushTo(target: ExtentList, offset: number, length: number): void {
    const list = this.#list;
    const end = offset + length;
    let at = offset;
    for (let i = at < list.end ? list.indexOf(at) : list.count; i < list.count && at < end; i++) {
      const to = Math.min(end, list.endAt(i));
      target.push(to - at, list.flagsAt(i) & Status.zero ? Status.zero : Status.data);
      at = to;
    }
    target.push(end - at, Status.data);
  }
}

/**
 * Whether clearly more clusters are in use than the file takes space for. The measure is QEMU's, so that both
 * call the same things zero.
 */
async function isPreallocated({ file, header, geometry }: Image): Promise<boolean> {
  const { clusterSize, refcountBits, refcountBlockEntries } = geometry;
  const taken = Math.floor(takenBytes(file) / clusterSize);
  const suspicious = Math.max(Math.floor((taken * 10) / 9), taken + 2);
  const clusters = Math.ceil(file.size / clusterSize);
  if (clusters < suspicious) return false;
  const blocks = Math.ceil(clusters / refcountBlockEntries);
  const tableBytes = header.refcountTableClusters * clusterSize;
  const table = new Uint8Array(Math.min(blocks * 8, tableBytes));
  await readPadded(file, header.refcountTableOffset, table);
  const block = new Uint8Array(clusterSize);
  let used = 0;
  for (let at = 0; at < table.length && used < suspicious; at += 8) {
    const offset = readRefcountTableEntry(viewOf(table), at);
    if (offset === 0 || offset % clusterSize !== 0 || offset >= file.size) continue;
    await readPadded(file, offset, block);
    // The last block goes on behind the end of the file.
    const entries = Math.min(refcountBlockEntries, clusters - (at / 8) * refcountBlockEntries);
    used += countReferenced(
      block.subarray(0, Math.ceil((entries * refcountBits) / 8)),
      refcountBits,
    );
  }
  return used >= suspicious;
}

/** Bytes that a file takes on its file system; as many as it has where it is none. */
function takenBytes({ path, size }: BlockDevice): number {
  if (path === undefined) return size;
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat === undefined ? size : stat.blocks * 512;
}
