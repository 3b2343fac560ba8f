import { type DriverKind, description, flag, oneOf, text, texts } from '../../contract/index.js';
import type { Qcow2Description } from './io/index.js';

export const qcow2: DriverKind<Qcow2Description> = {
  keys: {
    file: { read: description, required: true },
    backing: {
      read: (value, key, nested) =>
        value === null || value === '' ? null : nested(value, key, nested),
    },
    'data-file': { read: description },
    snapshot: { read: text },
    mapping: { read: oneOf('fixed', 'unfinished') },
    compress: { read: flag },
    rescue: { read: flag },
    'backing-folders': { read: texts },
  },
  ending: '.qcow2',
  around: (file) => ({ driver: 'qcow2', file }),
  // Loaded when it is needed, as most devices are not images.
  open: async (description, opening) => {
    const { Qcow2Driver } = await import('./open/index.js');
    return Qcow2Driver.open(description, opening);
  },
  children: ({ file, 'data-file': dataFile, backing }) => [
    { key: 'file', description: file, role: 'image' },
    ...(dataFile ? [{ key: 'data-file', description: dataFile, role: 'data file' } as const] : []),
    ...(backing ? [{ key: 'backing', description: backing, role: 'below' } as const] : []),
  ],
};
