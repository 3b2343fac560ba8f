// Not through the room's index: a command that copies files should not load a client to read a path.
import { parseNbdUri } from '../../nbd/address/index.js';
import type { NbdDescription } from './description.js';

/** The description of an export that a URI names. Who may name a device may name files: a path is one. */
export function describeNbdUri(uri: string): NbdDescription {
  return { driver: 'nbd', ...parseNbdUri(uri, { localFiles: true }) };
}
