/** Types that several commands have. Their names are QEMU's. */
import { alternate, list, struct, type Type, text, word } from '../schema/index.js';

export const syncMode = word('MirrorSyncMode', 'top', 'full', 'none', 'incremental', 'bitmap');
export const bitmapMode = word('BitmapSyncMode', 'on-success', 'never', 'always');
export const onError = word('BlockdevOnError', 'report', 'ignore', 'enospc', 'stop', 'auto');
export const copyMode = word('MirrorCopyMode', 'background', 'write-blocking');

const blockDirtyBitmap = struct('BlockDirtyBitmap', { node: text, name: text });

/** A bitmap of the node that is meant anyway, or of another one. */
const bitmapOrName: Type<string | { readonly node: string; readonly name: string }> = alternate(
  'BlockDirtyBitmapOrStr',
  () => [text, blockDirtyBitmap],
);

export const bitmapList = list(bitmapOrName);
