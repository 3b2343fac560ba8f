import { type DriverKind, size } from '../../contract/index.js';
import type { MemoryDescription } from './description.js';
import { MemoryDriver } from './memory.js';

export const memory: DriverKind<MemoryDescription> = {
  keys: { size: { read: size, required: true } },
  open: (description) => new MemoryDriver(description),
};
