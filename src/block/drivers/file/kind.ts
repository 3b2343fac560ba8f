import { identityOf } from '../../../files/index.js';
import { type DriverKind, oneOf, text } from '../../contract/index.js';
import type { FileDescription } from './description.js';
import { FileDriver } from './file.js';

export const file: DriverKind<FileDescription> = {
  keys: {
    filename: { read: text, required: true },
    locking: { read: oneOf('on', 'off', 'auto') },
    inode: { read: text },
  },
  open: (description) => FileDriver.open(description),
  isSame: async (a, b) => {
    const identity = identityOf(a.filename);
    return identity !== undefined && identity === identityOf(b.filename);
  },
};
