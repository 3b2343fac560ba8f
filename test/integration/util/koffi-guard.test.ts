import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const program = fileURLToPath(new URL('exit-while-loading.mjs', import.meta.url));

test('a process that ends while a thread is loading koffi ends with its own exit code', () => {
  const ends = Array.from({ length: 3 }, () => {
    const { status, signal, stderr } = spawnSync(process.execPath, [program], { encoding: 'utf8' });
    return { status, signal, stderr };
  });
  expect(ends).toEqual(ends.map(() => ({ status: 7, signal: null, stderr: '' })));
});
