import { type DriverKind, size } from '../../contract/index.js';
import type { NullDescription } from './description.js';
import { NullDriver } from './null.js';

export const nothing: DriverKind<NullDescription> = {
  keys: { size: { read: size } },
  parse: (text) => (text === 'null:' ? { driver: 'null' } : undefined),
  sized: (description, bytes) => ({ ...description, size: description.size ?? bytes }),
  open: (description) => new NullDriver(description),
};
