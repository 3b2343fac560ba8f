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

/** What an image needs and is not known here; `advice` says what to do instead. */
export function unsupported(image: string, needed: string, advice: string): LacunaError {
  const message = `${image} ${needed}: ${advice}`;
  return new LacunaError('ERR_QCOW2_UNSUPPORTED', message, { device: image });
}
