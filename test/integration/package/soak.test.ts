/** `npm run soak`: the random tests from new seeds, on a project of one small test. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { temporaryFolder } from '../../support/temporary-folder.js';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const folder = temporaryFolder();
mkdirSync(join(folder, 'test'));
symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));

/** A random test, which soak knows by the function's name. */
function writeTest(name: string, body: string): void {
  const text = `import { test } from 'vitest';
    const firstSeed = () => process.env.LACUNA_SEED;
    test('x', () => { ${body} });
    export const seed = firstSeed();`;
  writeFileSync(join(folder, `test/${name}.test.ts`), text);
}

/** Runs it, with all that it prints; `look` sees the output so far whenever there is more. */
function soak(args: string[], look: (output: string, child: ChildProcess) => void = () => {}) {
  const script = join(ROOT, 'scripts/soak.mjs');
  const child = spawn(process.execPath, [script, ...args], { cwd: folder });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      look(output, child);
    });
  }
  return new Promise<{ code: number | null; output: string }>((resolve) => {
    child.once('close', (code) => resolve({ code, output }));
  });
}

const interruptAt = (what: string) => (output: string, child: ChildProcess) => {
  // Once: a second one may come when it no longer listens.
  if (output.includes(what) && !child.killed) child.kill('SIGINT');
};

it('npm run soak runs a test over and over, from other seeds, and says at Ctrl-C that nothing failed', async () => {
  writeTest('good', '');
  let seeds: string[] = [];
  const { code, output } = await soak(['5', 'good'], (text, child) => {
    seeds = text.match(/(?<=ok {6}test\/good.test.ts, seed )\d+/g) ?? [];
    if (seeds.length >= 2 && !child.killed) child.kill('SIGINT');
  });
  expect([code, output]).toEqual([0, expect.stringMatching(/\d turns of 1 files: 0 failed\./)]);
  expect(new Set(seeds).size).toBe(seeds.length);
});

it('npm run soak names the seed of what failed, and how to repeat it', async () => {
  writeTest('bad', "throw new Error('LACUNA_SEED=4711 finds it');");
  const { code, output } = await soak(['5', 'bad'], interruptAt('Repeat it with'));
  expect(code).toBe(1);
  const [, seed] = /FAILED {2}test\/bad.test.ts, seed (\d+)/.exec(output)!;
  const repeat = `LACUNA_SEED=${seed} LACUNA_RUNS=5x npx vitest run test/bad.test.ts`;
  expect(output.split(repeat).length - 1).toBe(2);
  expect(output).toContain('or, shorter, LACUNA_SEED=4711 npx vitest run test/bad.test.ts');
  expect(output).toMatch(/[1-9] failed\./);
});

it('npm run soak ends when its time is over, and tells what hangs', async () => {
  writeTest('slow', 'return new Promise(() => setInterval(() => {}, 1000));');
  const { code, output } = await soak(['0.05', 'slow']);
  expect([code, output]).toEqual([
    0,
    expect.stringMatching(/ended.*slow.test.ts, seed \d+, in the/),
  ]);
});

it.each([
  ['no time', []],
  ['a time that is no number', ['soon']],
  ['a time that is too long', ['1e9']],
  ['a name that no test has', ['1', 'nowhere']],
])('npm run soak refuses %s', async (_what, args) => {
  const { code, output } = await soak(args);
  expect([code, output]).toEqual([2, expect.stringContaining('usage: npm run soak')]);
});
