/** What the subcommands of `lacuna bitmap` do that look at an image, or a file of bitmaps. */
import { exportBitmap } from '../../../block/index.js';
import { warnOfName } from '../../device/index.js';
import { printable, type Shell } from '../../shell/index.js';
import { formatBytes } from '../../text/index.js';
import { type BitmapFormat, type BitmapSource, openBitmapSource } from './bitmap-source.js';

export interface ViewFlags {
  format?: BitmapFormat;
  forceShare?: boolean;
  as?: string;
  json?: boolean;
}

/** What `lacuna bitmap list --json` prints of each. */
export interface StoredBitmapInfo {
  name: string;
  /** Bytes. */
  granularity: number;
  recording: boolean;
  inconsistent: boolean;
  /** Bytes; absent where the bitmap is inconsistent. */
  dirtyBytes?: number;
}

export async function listBitmaps(source: string, flags: ViewFlags, shell: Shell): Promise<void> {
  await using image = await openToRead(source, flags, shell);
  const infos: StoredBitmapInfo[] = [];
  for (const { name, granularity, recording, inconsistent } of image.list()) {
    const info = { name, granularity, recording, inconsistent };
    infos.push(inconsistent ? info : { ...info, dirtyBytes: await dirtyBytesOf(image, name) });
  }
  await shell.print(flags.json ? `${JSON.stringify(infos, null, 2)}\n` : describeList(infos));
}

/** One at a time in memory: an image may keep thousands. */
async function dirtyBytesOf(image: BitmapSource, name: string): Promise<number> {
  const bits = await image.load(name);
  const { dirtyBytes } = bits;
  bits.free();
  return dirtyBytes;
}

function describeList(infos: readonly StoredBitmapInfo[]): string {
  if (infos.length === 0) return 'No bitmaps.\n';
  const rows = infos.map(({ name, granularity, recording, inconsistent, dirtyBytes = 0 }) => [
    printable(name),
    formatBytes(granularity),
    inconsistent ? 'inconsistent' : recording ? 'recording' : 'disabled',
    inconsistent ? '-' : formatBytes(dirtyBytes),
  ]);
  const table = [['bitmap', 'granularity', 'state', 'dirty'], ...rows];
  const widths = [0, 1, 2].map((column) => Math.max(...table.map((row) => row[column].length)));
  return table
    .map((row) => `${row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('  ')}\n`)
    .join('');
}

export async function dumpBitmap(
  source: string,
  name: string,
  flags: ViewFlags,
  shell: Shell,
): Promise<void> {
  await using image = await openToRead(source, flags, shell);
  using bits = await image.load(name);
  const { size, granularity, dirtyBytes } = bits;
  if (flags.json) {
    // In a document that is begun there is no room for another.
    shell.failureDocument = undefined;
    const head = { name, size, granularity, dirtyBytes, digest: bits.digest() };
    await shell.print(`${JSON.stringify(head).slice(0, -1)},"ranges":[`);
  }
  let separator = '';
  for (const { offset, length } of bits.ranges()) {
    if (!shell.listening) return;
    await shell.print(
      flags.json
        ? `${separator}${JSON.stringify({ start: offset, length })}`
        : `${offset} ${length}\n`,
    );
    separator = ',\n';
  }
  if (flags.json) await shell.print(']}\n');
}

export async function exportToImage(
  source: string,
  { name, target }: { name: string; target: string },
  flags: ViewFlags,
  shell: Shell,
): Promise<void> {
  await using image = await openToRead(source, flags, shell);
  using bitmap = await image.load(name);
  await exportBitmap(target, { bitmap, name: flags.as ?? name, exclusive: true });
  warnOfName(target, 'qcow2', shell);
}

function openToRead(
  source: string,
  { format, forceShare }: ViewFlags,
  { signal }: Shell,
): Promise<BitmapSource> {
  return openBitmapSource(source, { format, forceShare, signal });
}
