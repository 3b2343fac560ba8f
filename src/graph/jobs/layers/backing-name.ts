import { realpathSync } from 'node:fs';
import { basename, dirname, isAbsolute, join, relative, resolve } from 'node:path';
import type { BackingName } from '../../../block/index.js';
import { LacunaError } from '../../../errors/index.js';
import { fileBelow, formatBelow, type GraphState, type Node } from '../../core/index.js';

/**
 * How an image names another node as its backing file: relative to its folder if the image below which that lies until now
 * names it so.
 *
 * @param namer the image that names the node until now.
 * @throws LacunaError ERR_IMAGE_CHAIN where the node is not in a file, or is open as no name can say it.
 */
export function nameFor({ view }: GraphState, image: Node, base: Node, namer: Node): BackingName {
  const format = formatBelow(view, base);
  const path = fileBelow(view, base);
  const { snapshot } = (base.driver.description ?? {}) as { snapshot?: string };
  if (snapshot !== undefined) {
    const message = `${base.device.name} is open as its internal snapshot "${snapshot}", which ${image.device.name} cannot name as its backing file: copy the snapshot into an image of its own first`;
    throw new LacunaError('ERR_IMAGE_CHAIN', message, { device: image.device.name });
  }
  const { backingFile: named, backingFormat } = namer.device.details ?? {};
  if (path === undefined || format === undefined) {
    // A name that only others understand, such as an export, holds wherever the image lies.
    if (named !== undefined && backingFormat !== undefined && named.includes(':')) {
      return { filename: named, format: backingFormat };
    }
    const message = `${base.device.name} is in no file that ${image.device.name} could name as its backing file: say the name as "backing"`;
    throw new LacunaError('ERR_IMAGE_CHAIN', message, { device: image.device.name });
  }
  const own = fileBelow(view, image);
  const isRelative = named === undefined || !isAbsolute(named);
  if (!isRelative || own === undefined) return { filename: resolve(path), format };
  const filename = relative(dirname(placeOf(own)), placeOf(path));
  // QEMU takes what stands before a colon for a protocol.
  const isPlain = !filename.split('/')[0].includes(':');
  return { filename: isPlain ? filename : `./${filename}`, format };
}

/** Where a file lies, symbolic links to its folder followed: a name with ".." in it is looked for from there. */
function placeOf(path: string): string {
  const absolute = resolve(path);
  return join(realpathSync(dirname(absolute)), basename(absolute));
}
