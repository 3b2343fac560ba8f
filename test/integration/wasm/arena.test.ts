import assert from 'node:assert/strict';
import { Worker } from 'node:worker_threads';
import { Arena } from 'lacuna/bitmap';
import { describe, it } from 'vitest';
import { Random } from '../../unit/bitmap/random.js';

type Block = ReturnType<Arena['allocate']>;

/** Bytes that a block of `length` really takes: a power of two of at least 64. */
const taken = (length: number): number => Math.max(64, 2 ** Math.ceil(Math.log2(length)));

describe.each(['simd', 'scalar'] as const)('an arena with %s kernels', (variant) => {
  it('does what a model of it does, and gives everything back', () => {
    const random = new Random(Random.seed());
    const arena = Arena.create({ variant, maximumBytes: 64 * 2 ** 20 });
    const idle = arena.usedBytes;
    const held: { block: Block; mark: number }[] = [];
    let used = idle;
    for (let step = 0; step < 4000; step++) {
      if (held.length > 0 && random.fraction() < 0.48) {
        const [{ block, mark }] = held.splice(random.between(0, held.length - 1), 1);
        assert.ok(
          block.bytes.every((byte) => byte === mark),
          `content, LACUNA_SEED=${random.seed}`,
        );
        used -= taken(block.length);
        block.free();
      } else {
        const length = random.between(1, random.pick([64, 100, 600, 5000, 100_000]));
        const block = arena.allocate(length);
        const mark = random.between(0, 255);
        block.bytes.fill(mark);
        held.push({ block, mark });
        used += taken(length);
      }
      assert.equal(arena.usedBytes, used, `used bytes, LACUNA_SEED=${random.seed}`);
    }
    for (const { block } of held) block.free();
    assert.equal(arena.usedBytes, idle);
  });

  it('says what to do when it is full, and is as it was before', () => {
    const arena = Arena.create({ variant, maximumBytes: 2 ** 21 });
    const blocks: Block[] = [];
    const fill = (length: number): void => {
      for (;;) blocks.push(arena.allocate(length));
    };
    const full = { code: 'ERR_ARENA_FULL', message: /larger maximumBytes/ };
    assert.throws(() => fill(65536), full);
    assert.throws(() => fill(64), full);
    const used = arena.usedBytes;
    // All but the header page and the table has been handed out.
    assert.ok(used >= 2 ** 21 - 3 * 65536, `${used} bytes`);
    assert.throws(() => arena.allocate(1), full);
    assert.throws(() => arena.allocate(2 ** 30), full);
    assert.equal(arena.usedBytes, used);
    blocks.pop()?.free();
    arena.allocate(64).free();
  });

  it('joins freed blocks into large ones again', () => {
    const arena = Arena.create({ variant, maximumBytes: 2 ** 23 });
    const blocks: Block[] = [];
    assert.throws(() => {
      for (;;) blocks.push(arena.allocate(512));
    });
    blocks.pop()?.free();
    blocks.pop()?.free();
    assert.throws(() => arena.allocate(2048), { code: 'ERR_ARENA_FULL' });
    for (const block of blocks) block.free();
    arena.allocate(2 ** 21).free();
  });

  it('has its full size from the start, so that no thread can be late to see it', () => {
    const arena = Arena.create({ variant });
    const early = arena.allocate(1000);
    const late = arena.allocate(2 ** 30);
    late.bytes[late.length - 1] = 1;
    assert.equal(early.bytes.buffer, late.bytes.buffer);
    assert.equal(arena.shared.memory.buffer.byteLength, 2 ** 32 - 65536);
  });

  it('costs memory only where it was used', () => {
    const before = process.memoryUsage().rss;
    const arenas = Array.from({ length: 20 }, () => Arena.create({ variant }));
    assert.ok(process.memoryUsage().rss - before < 50 * 2 ** 20);
    assert.equal(arenas.length, 20);
  });

  it('takes turns with other threads in handing out and taking back large blocks', async () => {
    const arena = Arena.create({ variant });
    const idle = arena.usedBytes;
    const url = new URL('taking-turns.mjs', import.meta.url);
    const turns = new Int32Array(new SharedArrayBuffer(4));
    const workerData = { shared: arena.shared, turns, threads: 4, rounds: 100 };
    const workers = Array.from({ length: 4 }, () => new Worker(url, { workerData }));
    await Promise.all(
      workers.map(
        (worker) =>
          new Promise((resolve, reject) => worker.on('exit', resolve).on('error', reject)),
      ),
    );
    assert.equal(arena.usedBytes, idle);
  });

  it('finds every single byte that is not zero, at every alignment', () => {
    const arena = Arena.create({ variant, maximumBytes: 2 ** 20 });
    const block = arena.allocate(1024);
    block.bytes.fill(0xff);
    for (let offset = 0; offset < 17; offset++) {
      for (const length of [0, 1, 7, 8, 15, 16, 31, 127, 128, 129, 300, 512]) {
        block.bytes.fill(0, offset, offset + length);
        assert.ok(arena.isZero(block, offset, length), `${offset}+${length}`);
        for (let at = offset; at < offset + length; at++) {
          block.bytes[at] = 0x80;
          assert.ok(!arena.isZero(block, offset, length), `${offset}+${length} with byte ${at}`);
          block.bytes[at] = 0;
        }
        block.bytes.fill(0xff);
      }
    }
  });

  it('splits a range into runs of zero and other steps', () => {
    const arena = Arena.create({ variant, maximumBytes: 2 ** 20 });
    const block = arena.allocate(20_000);
    block.bytes.fill(0);
    block.bytes[5000] = 1;
    block.bytes[12_287] = 1;
    const runs: number[] = [];
    for (let at = 0; at < block.length; at += Math.abs(runs.at(-1) as number)) {
      runs.push(arena.zeroRun(block, at, block.length - at, 4096));
    }
    assert.deepEqual(runs, [4096, -8192, 7712]);
    assert.equal(arena.zeroRun(block, 20_000, 0), 0);
  });

  it('is shared with other threads, which allocate beside each other', async () => {
    const arena = Arena.create({ variant });
    const idle = arena.usedBytes;
    const url = new URL('allocating.mjs', import.meta.url);
    const workers = Array.from(
      { length: 3 },
      (_, mark) => new Worker(url, { workerData: { shared: arena.shared, mark: mark + 1 } }),
    );
    const answers = await Promise.all(
      workers.map(
        (worker) =>
          new Promise((resolve, reject) => worker.on('message', resolve).on('error', reject)),
      ),
    );
    assert.deepEqual(answers, ['intact', 'intact', 'intact']);
    assert.equal(arena.usedBytes, idle);
  });
});

describe('misuse of an arena', () => {
  const arena = Arena.create({ maximumBytes: 2 ** 20 });

  it('is told with the value that was wrong', () => {
    assert.throws(() => Arena.create({ maximumBytes: 1000 }), /not 1000/);
    assert.throws(() => arena.allocate(0), /not 0/);
    const block = arena.allocate(100);
    assert.throws(() => arena.isZero(block, 90, 11), /length 11 at 90/);
    assert.throws(() => arena.isZero(block, 101), /offset 101/);
    assert.throws(() => arena.zeroRun(block, 0, 100, 0), /not 0/);
    block.free();
    block.free();
    assert.throws(() => arena.isZero(block), /freed/);
  });

  it('is told when the environment forces kernels that are not there', () => {
    const before = process.env.LACUNA_WASM;
    try {
      process.env.LACUNA_WASM = 'fast';
      assert.throws(() => Arena.create(), /'fast'/);
      process.env.LACUNA_WASM = 'scalar';
      const forced = Arena.create({ maximumBytes: 2 ** 20 }).shared.module;
      const scalar = Arena.create({ maximumBytes: 2 ** 20, variant: 'scalar' }).shared.module;
      assert.equal(forced, scalar);
    } finally {
      if (before === undefined) delete process.env.LACUNA_WASM;
      else process.env.LACUNA_WASM = before;
    }
  });

  it('does not attach to a memory without an arena', () => {
    const { module, maximumBytes } = arena.shared;
    const { WebAssembly: engine } = globalThis as unknown as {
      WebAssembly: { Memory: new (options: object) => Arena['shared']['memory'] };
    };
    const memory = new engine.Memory({ shared: true, initial: 1, maximum: 1 });
    assert.throws(() => Arena.attach({ module, memory, maximumBytes }), TypeError);
  });
});
