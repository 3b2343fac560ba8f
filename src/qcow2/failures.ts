import { LacunaError } from '../errors/index.js';

/**
 * What is found in an image and cannot be.
 *
 * @param image how a person would name the image.
 * @param found what was found, and where it was expected otherwise.
 * @param offset the byte of the image file where it was found.
 */
export function corrupt(image: string, found: string, offset: number): LacunaError {
  const message =
    `${image} is corrupt: ${found} (at byte ${offset} of the file). ` +
    'Look at it with "qemu-img check", repair a copy of it with "qemu-img check -r all", ' +
    'or restore it from a backup';
  return new LacunaError('ERR_QCOW2_CORRUPT', message, { device: image, offset });
}

/** What was said to be an image, or has the name of one, and does not begin as one. */
export function noImage(path: string): LacunaError {
  const message = `${path} is no qcow2 image, by its first bytes: check the path, or say that it is raw (-f raw)`;
  return new LacunaError('ERR_QCOW2_CORRUPT', message, { device: path, offset: 0 });
}

/** The name of a file in an image that would be taken for that of another one. */
export function oddName(image: string, what: string): LacunaError {
  const advice = `rename that file, and have the image name it anew (of a backing file: "qemu-img rebase -u")`;
  return unsupported(image, `names a ${what} whose name is not valid UTF-8`, advice);
}

/** What an image needs and is not known here; `advice` says what to do instead. */
export function unsupported(image: string, needed: string, advice: string): LacunaError {
  const message = `${image} ${needed}: ${advice}`;
  return new LacunaError('ERR_QCOW2_UNSUPPORTED', message, { device: image });
}
