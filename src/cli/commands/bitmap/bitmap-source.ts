/** Where bitmaps are kept that are only looked at: a qcow2 image, or a file of bitmaps. */
import { type Bitmap, BitmapFile } from '../../../bitmap/index.js';
import { type BitmapImageOptions, openBitmaps } from '../../../block/index.js';
import { inconsistent } from '../../device/index.js';

export interface KeptBitmap {
  readonly name: string;
  /** Bytes. */
  readonly granularity: number;
  readonly recording: boolean;
  readonly inconsistent: boolean;
}

export interface BitmapSource extends AsyncDisposable {
  list(): readonly KeptBitmap[];
  /** The bits of one; the caller owns them. */
  load(name: string): Promise<Bitmap>;
}

/** What a file of bitmaps is told by, as the format of an image is: never by its content. */
const ENDING = /\.bitmaps$/i;

/** The formats of what keeps bitmaps. */
export type BitmapFormat = BitmapImageOptions['format'] | 'bitmaps';

export interface BitmapSourceOptions extends Omit<BitmapImageOptions, 'format' | 'writable'> {
  readonly format?: BitmapFormat | undefined;
}

/** The format that is said, or else a file of bitmaps by its name; how images are told is not known here. */
export function formatOf(path: string, said: BitmapFormat | undefined): BitmapFormat | undefined {
  return said ?? (ENDING.test(path) ? 'bitmaps' : undefined);
}

/** @throws LacunaError what `openBitmaps` and `BitmapFile.open` throw. */
export async function openBitmapSource(
  path: string,
  { format: said, ...options }: BitmapSourceOptions,
): Promise<BitmapSource> {
  const format = formatOf(path, said);
  if (format === 'bitmaps') return openFile(path);
  const image = await openBitmaps(path, { ...options, format });
  return {
    list: () => image.bitmaps.list(),
    load: (name) => image.load(name),
    [Symbol.asyncDispose]: () => image.close(),
  };
}

function openFile(path: string): BitmapSource {
  const file = BitmapFile.open(path, { readOnly: true });
  return {
    list: () => file.bitmaps,
    load: async (name) => {
      if (file.bitmaps.find((each) => each.name === name)?.inconsistent) {
        throw inconsistent(name, path);
      }
      return file.load(name);
    },
    [Symbol.asyncDispose]: async () => file.close(),
  };
}
