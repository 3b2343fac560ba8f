/** `--backing-folder`: folders into which the files that images name are followed, beside each image's own. */
import { dirname, resolve } from 'node:path';
import {
  changeUnfiltered,
  type DeviceDescription,
  fileOf,
  type ImageFormat,
  imageOf,
  parseDescription,
} from '../../block/index.js';

export const FOLDER_FLAG = '--backing-folder <folder>';
export const FOLDER_TEXT =
  'follow the files that an image names into this folder too, not only its own; may be repeated';

/** A device as the command line names it, with the folders that its chain may lead into. */
export function withFolders(
  source: string | DeviceDescription,
  format: ImageFormat | undefined,
  folders: readonly string[] = [],
): string | DeviceDescription {
  if (folders.length === 0) return source;
  const description = typeof source === 'string' ? parseDescription(source, { format }) : source;
  const image = imageOf(description);
  if (image === undefined) return source;
  const { file, 'backing-folders': said } = image;
  const path = fileOf(file)?.filename;
  const own = path === undefined ? [] : [dirname(resolve(path))];
  const all = [...(said ?? own), ...folders];
  return changeUnfiltered(description, () => ({ ...image, 'backing-folders': all }));
}
