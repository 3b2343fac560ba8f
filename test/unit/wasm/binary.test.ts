import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'vitest';

/** What is used of it here; Node's types have no more than its name. */
const { WebAssembly: wasm } = globalThis as unknown as {
  WebAssembly: {
    compile(bytes: Uint8Array): Promise<object>;
    Module: { exports(module: object): { name: string; kind: string }[] };
  };
};

const SECTION = { import: 2, memory: 5, global: 6, start: 8, code: 10, data: 11 };
/** The instruction memory.atomic.wait32 with its alignment. */
const WAIT = Buffer.from([0xfe, 0x01, 0x02]);

/** Ids of the sections of a module, with their bytes. */
function sections(wasm: Uint8Array): Map<number, Uint8Array> {
  const found = new Map<number, Uint8Array>();
  for (let at = 8; at < wasm.length; ) {
    const id = wasm[at++];
    const [length, start] = leb(wasm, at);
    found.set(id, wasm.subarray(start, start + length));
    at = start + length;
  }
  return found;
}

function leb(bytes: Uint8Array, start: number): [value: number, next: number] {
  let value = 0;
  for (let at = start, shift = 0; ; at++, shift += 7) {
    value |= (bytes[at] & 0x7f) << shift;
    if (bytes[at] < 0x80) return [value, at + 1];
  }
}

describe.each(['simd', 'scalar'])('the %s kernels', (variant) => {
  const url = new URL(`../../../dist/wasm/kernels.${variant}.wasm`, import.meta.url);
  const found = sections(readFileSync(url));

  it('import nothing but the memory', () => {
    const bytes = found.get(SECTION.import) as Uint8Array;
    assert.equal(bytes[0], 1, 'one import');
    assert.equal(Buffer.from(bytes.subarray(1, 12)).toString('latin1'), '\x03env\x06memory');
  });

  it('wait in one place only, which the optimizer has copied nowhere', () => {
    const code = Buffer.from(found.get(SECTION.code) as Uint8Array);
    const first = code.indexOf(WAIT);
    assert.ok(first > 0, 'there is a wait');
    assert.equal(
      code.indexOf(WAIT, first + 1),
      -1,
      'there is one only; see nap in assembly/lock.ts',
    );
  });

  it('hold no data, memory or start function that a second instance would run again', () => {
    assert.ok(!found.has(SECTION.data), 'no data section');
    assert.ok(!found.has(SECTION.start), 'no start section');
    assert.ok(!found.has(SECTION.memory), 'no memory of their own');
  });

  it('export the names that the sources call, and no other', async () => {
    const source = readFileSync(new URL('../../../src/wasm/kernels.ts', import.meta.url), 'utf8');
    const [, body] = /export interface Kernels \{([\s\S]*?)\n\}/.exec(source) ?? [];
    const names = [...(body ?? '').matchAll(/^ {2}(?:readonly )?(\w+)[(:]/gm)].map(
      ([, name]) => name,
    );
    const exported = wasm.Module.exports(await wasm.compile(readFileSync(url)));
    const functions = exported.filter(({ kind }) => kind === 'function');
    assert.deepEqual(functions.map(({ name }) => name).sort(), names.sort());
  });

  it('hold no variables, which would differ between threads', () => {
    const bytes = found.get(SECTION.global) as Uint8Array;
    let [count, at] = leb(bytes, 0);
    for (; count > 0; count--) {
      assert.equal(bytes[at + 1], 0, 'a global is constant');
      assert.equal(bytes[at + 2], 0x41, 'a global is an i32.const');
      at = leb(bytes, at + 3)[1] + 1;
    }
  });
});
