import {
  fileOf,
  type ImageFormat,
  imageOf,
  parseDescription,
  plainFile,
} from '../../../block/index.js';

/** A file that is to be made, and as what. */
export interface NamedImage {
  readonly path: string;
  readonly format: ImageFormat;
}

/**
 * The file that a name stands for, and its format, which the name tells where nothing else does.
 *
 * @throws TypeError where it is not the path of a file.
 */
export function nameImage(name: string, format: ImageFormat | undefined): NamedImage {
  const description = parseDescription(name, { format });
  const image = imageOf(description);
  const path = (image === undefined ? plainFile(description) : fileOf(image.file))?.filename;
  if (path === name) return { path, format: image === undefined ? 'raw' : 'qcow2' };
  throw new TypeError(`${name} is not the path of a file, and nothing else can be made`);
}
