import assert from 'node:assert/strict';
import type { BlockDevice } from '../../block/index.js';
import { type ExtentList, Status } from '../../extent/index.js';
import { Random } from '../shared/index.js';
import { assertCode, type DeviceTest, ODD, readAll } from './subject.js';

async function scatter(device: BlockDevice, random: Random): Promise<void> {
  await device.zero(0, device.size);
  for (let count = 0; count < 12; count++) {
    const offset = random.below(device.size - ODD);
    await device.write(offset, random.bytes(1 + random.below(ODD)));
  }
  const middle = Math.floor(device.size / 2);
  await device.zero(middle - ODD, ODD);
}

function assertCovers(list: ExtentList, offset: number, length: number): void {
  assert.equal(list.offset, offset, 'first byte');
  assert.equal(list.end, offset + length, 'last byte');
  let end = offset;
  for (const extent of list) {
    assert.equal(extent.offset, end, 'extents must adjoin');
    assert(extent.length > 0, 'an extent must not be empty');
    end += extent.length;
  }
  assert.equal(end, offset + length, 'extents must end with the range');
}

function assertTrue(list: ExtentList, bytes: Uint8Array): void {
  for (const { offset, length, flags } of list) {
    if ((flags & Status.zero) === 0) continue;
    const part = bytes.subarray(offset, offset + length);
    const at = part.findIndex((byte) => byte !== 0);
    assert.equal(at, -1, `byte ${offset + at} is not zero, though its status says so`);
  }
}

const tellsTheTruth: DeviceTest = async (device, { seed = 1, keeps = true }) => {
  const random = new Random(seed);
  if (device.capabilities.write && keeps) await scatter(device, random);
  const bytes = keeps ? await readAll(device) : undefined;
  const ranges = [[0, device.size]];
  for (let count = 0; count < 40; count++) {
    const offset = random.below(device.size);
    ranges.push([offset, 1 + random.below(device.size - offset)]);
  }
  for (const [offset, length] of ranges) {
    const [list] = await device.extents(offset, length);
    assertCovers(list, offset, length);
    if (bytes !== undefined) assertTrue(list, bytes);
    const [some] = await device.someExtents(offset, length);
    assertCovers(some, offset, some.end - offset);
    assert(some.end > offset && some.end <= offset + length, 'some extents, inside the range');
  }
};

const knowsItsContexts: DeviceTest = async (device) => {
  const contexts = ['base:allocation', ...device.capabilities.contexts];
  const lists = await device.extents(1, ODD, { contexts });
  assert.equal(lists.length, contexts.length, 'one list for each context');
  for (const list of lists) assertCovers(list, 1, ODD);
  const unknown = { contexts: ['qemu:dirty-bitmap:no-such-bitmap'] };
  await assertCode(device.extents(0, 1, unknown), 'ERR_CONTEXT_UNKNOWN');
};

/** Status never claims what is not so. */
export const statusTests: Record<string, DeviceTest> = {
  'tells the status of every byte, and never calls a byte zero that is not': tellsTheTruth,
  'answers every context it has, and refuses others': knowsItsContexts,
};
