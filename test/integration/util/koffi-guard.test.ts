import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const programOf = (name: string) => fileURLToPath(new URL(name, import.meta.url));

/** How a program ends; one that hangs is killed. */
function endOf(name: string) {
  const options = { encoding: 'utf8', timeout: 60_000, killSignal: 'SIGKILL' } as const;
  const { status, signal, stderr } = spawnSync(process.execPath, [programOf(name)], options);
  return { status, signal, stderr };
}

test('a process that ends while a thread is loading koffi ends with its own exit code', () => {
  const ends = Array.from({ length: 3 }, () => endOf('exit-while-loading.mjs'));
  expect(ends).toEqual(ends.map(() => ({ status: 7, signal: null, stderr: '' })));
});

test('a process ends although a thread was terminated while it was loading koffi', () => {
  expect(endOf('exit-after-terminating.mjs')).toEqual({ status: 7, signal: null, stderr: '' });
});
