import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { findViolations, importsOf } from '../support/layering.js';

const ROOT = new URL('../../src/', import.meta.url).pathname;

function readSources(): Map<string, string> {
  const files = readdirSync(ROOT, { recursive: true, encoding: 'utf8' });
  const sources = files.filter((file) => file.endsWith('.ts'));
  return new Map(sources.map((file) => [file, readFileSync(join(ROOT, file), 'utf8')]));
}

/** What is found in a tree of these files. */
function violationsOf(files: Record<string, string>): string[] {
  return findViolations(new Map(Object.entries(files)));
}

describe('the sources', () => {
  test('keep to the rules of the rooms', () => {
    expect(findViolations(readSources())).toEqual([]);
  });
});

describe('the tests', () => {
  // Support has the places that may: the seed of all tests, and fast-check with it.
  const tests = new URL('../', import.meta.url).pathname;
  const files = readdirSync(tests, { recursive: true, encoding: 'utf8' }).filter(
    (file) => /\.m?ts$|\.mjs$/.test(file) && !file.endsWith('layering.test.ts'),
  );
  const CHANCE = /Math\.random|\brandomBytes\b|\brandomUUID\b|getRandomValues|from 'fast-check'/;

  test('take their chance from a seed: Random, noise(), and test/support/fast-check.ts', () => {
    const found = files.filter((file) => CHANCE.test(readFileSync(join(tests, file), 'utf8')));
    expect(found).toEqual(['support/fast-check.ts']);
  });

  test('of units need no programs of others, and are in test/integration where they do', () => {
    const FOREIGN =
      /support\/(peers|qemu-images|qcow2-images|scribble|certificates|qmp)\.js'|'(qemu-\w+|nbd(kit|info|copy|-server)|python3?|spin|gcc|openssl|fio)'/;
    const units = files.filter((file) => file.startsWith('unit/'));
    const found = units.filter((file) => FOREIGN.test(readFileSync(join(tests, file), 'utf8')));
    expect(found).toEqual([]);
  });
});

describe('the checker finds', () => {
  test.each([
    [
      'a lower room that looks up',
      'bitmap/a.ts',
      "import { b } from '../block/b.js';",
      /bitmap lies below block/,
    ],
    [
      'a type that comes from above',
      'extent/a.ts',
      "import type { B } from '../copy/b.js';",
      /extent lies below copy/,
    ],
    [
      'a re-export from above',
      'block/a.ts',
      "export * from '../copy/b.js';",
      /block lies below copy/,
    ],
    [
      'an import at run time',
      'wasm/a.ts',
      "await import('../bitmap/b.js');",
      /wasm lies below bitmap/,
    ],
    ['an import for its effect', 'util/a.ts', "import '../wasm/b.js';", /util lies below wasm/],
    [
      'an NBD room that knows devices',
      'nbd/a.ts',
      "import { b } from '../block/b.js';",
      /knows only errors, util, extent/,
    ],
    [
      'a second bridge into NBD',
      'copy/a.ts',
      "import { b } from '../nbd/b.js';",
      /only block\/nbd.ts/,
    ],
    [
      'an end of NBD that knows the other',
      'nbd/server/a.ts',
      "import { b } from '../client/b.js';",
      /in nbd\/stream or nbd\/wire/,
    ],
    [
      'a stream of NBD that knows an end',
      'nbd/stream/a.ts',
      "import { b } from '../client/b.js';",
      /nbd\/stream does not know nbd\/client/,
    ],
    [
      'a command that is imported',
      'copy/a.ts',
      "import { b } from '../cli/b.js';",
      /never the other way round/,
    ],
    [
      'a room that uses the public index',
      'copy/a.ts',
      "import { b } from '../index.js';",
      /for users of the package/,
    ],
    [
      'a room that depends on test suites',
      'copy/a.ts',
      "import { b } from '../testing/b.js';",
      /shipped for others/,
    ],
    ['WASM outside its room', 'block/a.ts', 'new WebAssembly.Memory({});', /raw pointers/],
    ['exports of an instance', 'copy/a.ts', 'wasm.instance.exports.f();', /raw pointers/],
    [
      'threads outside their rooms',
      'nbd/a.ts',
      "import { W } from 'node:worker_threads';",
      /threads exist/,
    ],
    ['atomics outside their rooms', 'cli/a.ts', 'Atomics.load(a, 0);', /threads exist/],
    ['a file that grew too long', 'util/a.ts', '\n'.repeat(501), /501 lines/],
  ])('%s', (_what, file, text, message) => {
    const violations = violationsOf({ [file]: text });
    expect(violations).toHaveLength(1);
    expect(violations[0]).toMatch(message);
  });

  test('files that import each other, however far around', () => {
    const violations = violationsOf({
      'util/a.ts': "import { b } from './b.js';",
      'util/b.ts': "import { c } from './c.js';",
      'util/c.ts': "import type { a } from './a.js';",
    });
    expect(violations).toEqual([
      expect.stringContaining('util/a.ts -> util/b.ts -> util/c.ts -> util/a.ts'),
    ]);
  });
});

describe('the checker allows', () => {
  test.each([
    ['looking down', 'copy/a.ts', "import { b } from '../bitmap/b.js';"],
    ['a room to itself', 'nbd/a.ts', "import { b } from './b.js';"],
    ['NBD to use errors', 'nbd/a.ts', "import { b } from '../errors/index.js';"],
    ['an end of NBD to use the stream', 'nbd/client/a.ts', "import { b } from '../stream/b.js';"],
    ['the bridge into NBD', 'block/nbd.ts', "import { b } from '../nbd/index.js';"],
    ['the public index to name all rooms', 'index.ts', "export * from './copy/index.js';"],
    ['test suites to use devices', 'testing/a.ts', "import { b } from '../block/index.js';"],
    ['talking of threads', 'block/a.ts', '/** Unlike Atomics */ // and WebAssembly'],
    ['threads in the copy loop', 'copy/a.ts', "import { Piscina } from 'piscina';"],
  ])('%s', (_what, file, text) => {
    expect(violationsOf({ [file]: text })).toEqual([]);
  });

  test('packages and Node to be imported by all', () => {
    const text =
      "import fs from 'node:fs';\nimport {\n  a,\n} from 'x';\nimport { b } from './b.js';";
    expect(importsOf('util/a.ts', text)).toEqual(['util/b.ts']);
  });
});
