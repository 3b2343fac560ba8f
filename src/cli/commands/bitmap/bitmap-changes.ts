/** What the subcommands of `lacuna bitmap` do that change an image. */
import { type BitmapImage, type BitmapImageOptions, openBitmaps } from '../../../block/index.js';
import { type Shell, setFormatFlag } from '../../shell/index.js';
import { type BitmapFormat, formatOf } from './bitmap-source.js';

export interface ChangeFlags {
  format?: BitmapFormat;
  granularity?: number;
  disabled?: boolean;
  sourceFile?: string;
  sourceFormat?: BitmapImageOptions['format'];
}

export function addBitmap(
  image: string,
  name: string,
  flags: ChangeFlags,
  shell: Shell,
): Promise<void> {
  const { granularity, disabled } = flags;
  return change(image, flags, shell, async ({ bitmaps }) => {
    bitmaps.add({ name, granularity, disabled, persistent: true });
  });
}

/** The same for several, all or none. */
export function changeBitmaps(
  image: string,
  { action, names }: { action: 'remove' | 'clear' | 'enable' | 'disable'; names: string[] },
  flags: ChangeFlags,
  shell: Shell,
): Promise<void> {
  return change(image, flags, shell, async ({ bitmaps }) => {
    bitmaps.transaction(names.map((name) => ({ type: action, name })));
  });
}

export async function mergeBitmaps(
  image: string,
  { target, sources }: { target: string; sources: readonly string[] },
  flags: ChangeFlags,
  shell: Shell,
): Promise<void> {
  const { sourceFile, sourceFormat: format } = flags;
  if (sourceFile === undefined && format !== undefined) {
    throw new TypeError(
      '-F is the format of another image that has the sources: name that with -b',
    );
  }
  await change(image, flags, shell, async ({ bitmaps }) => {
    await bitmaps.load(target);
    if (sourceFile === undefined) {
      for (const name of sources) await bitmaps.load(name);
      bitmaps.merge(target, sources);
      return;
    }
    setFormatFlag(shell, '-F', sourceFile, image);
    await using other = await openBitmaps(sourceFile, { format, signal: shell.signal });
    for (const name of sources) await other.bitmaps.load(name);
    bitmaps.merge(
      target,
      sources.map((name) => ({ bitmaps: other.bitmaps, name })),
    );
  });
}

async function change(
  path: string,
  flags: ChangeFlags,
  { signal }: Shell,
  work: (image: BitmapImage) => Promise<void>,
): Promise<void> {
  const format = formatOf(path, flags.format);
  if (format === 'bitmaps') {
    throw new TypeError(
      `${path} is a file of bitmaps, which is only looked at here; "lacuna populate" adds to it`,
    );
  }
  await using image = await openBitmaps(path, { format, writable: true, signal });
  await work(image);
  await image.store();
}
