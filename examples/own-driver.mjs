/**
 * A driver of one's own: a disk that is kept as a table of blocks, as backup products keep them. It tells which
 * parts it holds, so a copy reads only those. The same is served over NBD, and passes the suite for drivers.
 *
 *     node examples/own-driver.mjs
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compare, copy, Device, ExtentList, Status } from 'lacuna';
import { NbdServer } from 'lacuna/nbd';
import { deviceContract } from 'lacuna/testing';

const BLOCK = 65536;

/** Blocks by number; what is in none of them reads as zero. @implements {import('lacuna').Driver} */
class BlockTable {
  name = 'a table of blocks';
  // What is not said here it cannot: it is never written, for one.
  capabilities = { contexts: ['base:allocation'], exactStatus: true };
  // Blocks are read whole, so the device asks for whole ones.
  limits = {
    minimum: BLOCK,
    preferred: BLOCK,
    maximum: 64 * BLOCK,
    maximumZero: 64 * BLOCK,
    zeroAlignment: BLOCK,
    discardAlignment: BLOCK,
  };

  constructor(size, blocks) {
    this.size = size;
    this.blocks = blocks;
  }

  async read(offset, target) {
    for (let at = 0; at < target.length; at += BLOCK) {
      const block = this.blocks.get((offset + at) / BLOCK);
      const part = target.subarray(at, at + BLOCK);
      if (block === undefined) part.fill(0);
      else part.set(block.subarray(0, part.length));
    }
  }

  /** One list for each context; this driver has only one. */
  async extents(offset, length, contexts) {
    const list = new ExtentList(offset);
    for (let at = offset; at < offset + length; at += BLOCK) {
      const held = this.blocks.has(at / BLOCK);
      list.push(Math.min(BLOCK, this.size - at), held ? Status.data : Status.hole | Status.zero);
    }
    return contexts.map(() => list);
  }

  async close() {}
}

const blocks = new Map([
  [0, Buffer.alloc(BLOCK, 'first')],
  [7, Buffer.alloc(BLOCK, 'seventh')],
  [1000, Buffer.alloc(BLOCK, 'thousandth')],
]);
const openTable = () => new Device(new BlockTable(2 ** 30, blocks));

// The suite is a list of cases for any test runner.
const suite = deviceContract({
  size: 2 ** 30,
  keeps: false,
  open: async () => ({ device: openTable(), dispose: async () => {} }),
});
for (const { run } of suite) await run();
console.log(`the driver passes all ${suite.length} cases`);

const folder = await mkdtemp(join(tmpdir(), 'lacuna-example-'));
const source = openTable();
const server = new NbdServer({ exports: [{ name: 'disk', device: source }] });
try {
  const target = join(folder, 'disk.raw');
  const { movedBytes, size } = await copy({ source, target });
  console.log(`moved ${movedBytes} of ${size} bytes`);

  const socket = join(folder, 'nbd.sock');
  await server.listen({ type: 'unix', path: socket });
  const { equal } = await compare({ a: target, b: `nbd+unix:///disk?socket=${socket}` });
  console.log(equal ? 'source and target are equal' : 'source and target differ');
} finally {
  await server.close();
  await source.close();
  await rm(folder, { recursive: true });
}
