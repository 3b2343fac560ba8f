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
    'Look at it with "lacuna check", repair a copy of it with "lacuna check -r all" or "qemu-img check -r all", ' +
    'or restore it from a backup';
  return new LacunaError('ERR_QCOW2_CORRUPT', message, { device: image, offset });
}

/**
 * What a table names and the file does not have: a part of the image is lost.
 *
 * @param what was to be read, such as `an L2 table`; it lies at `offset`, and the file ends at `end`.
 */
export function cutShort(
  image: string,
  what: string,
  { offset, end }: { offset: number; end: number },
): LacunaError {
  const message =
    `${image} is cut short: ${what} at ${offset} lies wholly or partly behind the end of the file (byte ${end}). ` +
    'Bring the whole file back, or read what is there, and zeroes for the rest, with "rescue" of a description (--rescue)';
  return new LacunaError('ERR_QCOW2_CORRUPT', message, { device: image, offset });
}

/** What was said to be an image, or has the name of one, and does not begin as one. */
export function noImage(path: string): LacunaError {
  const message = `${path} is not a qcow2 image, by its first bytes: check the path, or say that it is raw (-f raw)`;
  return new LacunaError('ERR_QCOW2_CORRUPT', message, { device: path, offset: 0 });
}

/** A new image on a device, before or without its end. */
export function unfinishedImage(path: string): LacunaError {
  const message = `${path} holds a part of a new qcow2 image: the copy that makes it has not ended yet, or was stopped; then make it anew with a full copy`;
  return new LacunaError('ERR_QCOW2_CORRUPT', message, { device: path, offset: 0 });
}

/** The name of a file in an image that would be taken for that of another one. */
export function oddName(image: string, what: string): LacunaError {
  const advice = `rename that file, and have the image name it anew (of a backing file: "qemu-img rebase -u")`;
  return unsupported(image, `names a ${what} whose name is not valid UTF-8`, advice);
}

/** Whether an error is of {@link noImage}, about this file. */
export function isNoImage(error: unknown, path: string): boolean {
  return error instanceof LacunaError && error.message === noImage(path).message;
}

/** What an image needs and is not known here; `advice` says what to do instead. */
export function unsupported(image: string, needed: string, advice: string): LacunaError {
  const message = `${image} ${needed}: ${advice}`;
  return new LacunaError('ERR_QCOW2_UNSUPPORTED', message, { device: image });
}
