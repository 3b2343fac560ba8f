import type { BlockDevice } from '../../block/index.js';
import { Random } from '../shared/index.js';
import { assertBytes, type DeviceTest, readAll } from './subject.js';

const STEPS = 250;
const LONGEST = 150_000;
const BORDERS = [1, 512, 4096, 65_536];

/** A range anywhere, often at a border where blocks, pages or pieces begin, and often at the end. */
function randomRange(random: Random, size: number): { offset: number; length: number } {
  const unit = random.pick(BORDERS);
  const offset = Math.floor(random.below(size) / unit) * unit;
  const rest = size - offset;
  if (random.below(8) === 0) return { offset, length: Math.min(rest, LONGEST) };
  const length = 1 + random.below(Math.min(rest, random.pick([600, 9000, LONGEST])));
  return { offset, length: random.below(2) === 0 ? length : Math.min(rest, alignUp(length, unit)) };
}

function alignUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

/** Does one random request to the device and to the model. */
async function step(device: BlockDevice, model: Uint8Array, random: Random): Promise<string> {
  const { offset, length } = randomRange(random, device.size);
  const end = offset + length;
  const kind = random.pick(['read', 'write', 'write', 'zero', 'discard', 'flush']);
  const what = `${kind} of ${length} bytes at ${offset}`;
  if (kind === 'write') {
    model.set(random.bytes(length), offset);
    await device.write(offset, model.subarray(offset, end), { fua: random.below(8) === 0 });
  } else if (kind === 'zero') {
    model.fill(0, offset, end);
    await device.zero(offset, length, { unmap: random.below(2) === 0 });
  } else if (kind === 'discard' && device.capabilities.discard) {
    await device.discard(offset, length);
    await device.read(offset, model.subarray(offset, end));
  } else if (kind === 'flush') {
    await device.flush();
  }
  assertBytes(await readAll(device, offset, length), model.subarray(offset, end), what);
  return what;
}

const matchesModel: DeviceTest = async (device, { seed = 1 }) => {
  const random = new Random(seed);
  const model = await readAll(device);
  let last = '';
  for (let count = 0; count < STEPS; count++) {
    last = await step(device, model, random);
    if (count % 25 === 0) assertBytes(await readAll(device), model, `everything after ${last}`);
  }
  assertBytes(await readAll(device), model, `everything after ${last}, seed ${seed}`);
};

/**
 * Cuts two blocks and more into slices and writes or zeroes all of them at once. Each slice belongs to one request,
 * so whatever order they run in, all must be there in the end.
 */
const keepsNeighbours: DeviceTest = async (device, { seed = 1 }) => {
  const random = new Random(seed);
  const length = 70_000;
  for (let round = 0; round < 4; round++) {
    const model = random.bytes(length);
    const requests: Promise<void>[] = [];
    for (let at = 0; at < length; ) {
      const end = Math.min(length, at + 1 + random.below(random.pick([40, 700, 9000])));
      const isZero = random.below(4) === 0;
      if (isZero) model.fill(0, at, end);
      requests.push(isZero ? device.zero(at, end - at) : device.write(at, model.subarray(at, end)));
      at = end;
    }
    await Promise.all(requests);
    assertBytes(await readAll(device, 0, length), model, `round ${round}, seed ${seed}`);
  }
};

/** Many requests, one after another and side by side, against a plain array. */
export const modelTests: Record<string, DeviceTest> = {
  'matches a model through random requests': matchesModel,
  'loses nothing when neighbours are written at the same time': keepsNeighbours,
};
