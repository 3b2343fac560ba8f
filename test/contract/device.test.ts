import { Device, NullDriver } from '#dist/block/index.js';
import { file, memory, nothing, ODD_SIZE, SIZE, suite } from './suites.js';

suite('memory', memory(SIZE));
suite('memory of an odd size', memory(ODD_SIZE));
suite(
  'memory behind tight limits',
  memory(ODD_SIZE, { minimum: 4096, preferred: 4096, maximum: 65_536, maximumZero: 131_072 }),
);
suite(
  'memory with maxima that are no multiples of the minimum',
  memory(SIZE, { minimum: 512, preferred: 512, maximum: 10_000, maximumZero: 10_000 }),
);
suite('null', {
  size: SIZE,
  keeps: false,
  open: async () => ({
    device: new Device(new NullDriver({ driver: 'null', size: SIZE })),
    dispose: nothing,
  }),
});
suite('file', file(ODD_SIZE, true));
suite('read-only file', file(SIZE, false));
