import { type DriverKind, description, size } from '../../contract/index.js';
import type { RawDescription } from './description.js';

export const raw: DriverKind<RawDescription> = {
  keys: {
    file: { read: description, required: true },
    offset: { read: size },
    size: { read: size },
  },
  // Loaded when it is needed, as few devices are a part of another one.
  open: async (given, opening) => {
    const { RawDriver } = await import('./raw.js');
    return RawDriver.open(given, opening);
  },
  children: ({ file }) => [{ key: 'file', description: file, role: 'part' }],
  sized: (given, bytes) => (given.size === undefined ? { ...given, size: bytes } : given),
};
