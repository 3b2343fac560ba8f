import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { findCircles } from '../support/rules/circles.js';
import { findLong, functionsOf, type LongFunctions } from '../support/rules/lengths.js';
import { findStarters } from '../support/rules/programs.js';
import { findForbidden } from '../support/rules/rooms.js';
import { importsOf } from '../support/rules/source-tree.js';
import { findUnused } from '../support/rules/unused-exports.js';

const ROOT = new URL('../../', import.meta.url).pathname;

/** Why each of these functions is longer than 40 lines; none of them may grow. */
const LONG: LongFunctions = {
  'block/drivers/file/ffi.ts declare': { lines: 48, why: 'one line for each call of the system' },
  'block/drivers/qcow2/create/new-image.ts layOutImage': {
    lines: 64,
    why: 'where everything in a new image lies, each place after the one before',
  },
  'block/drivers/qcow2/open/chain.ts openAll': {
    lines: 47,
    why: 'the files of an image in the order in which each depends on those before',
  },
  'block/drivers/qcow2/open/qcow2.ts constructor': {
    lines: 50,
    why: 'limits and capabilities, a line each',
  },
  'block/drivers/qcow2/write/cluster-writer.ts #writeNew': {
    lines: 41,
    why: 'the steps that a power cut may part, in one place',
  },
  'block/drivers/qcow2/write/image-writer.ts constructor': {
    lines: 41,
    why: 'the parts of a writer, a line each',
  },
  'block/filters/pass-through.ts passThrough': { lines: 52, why: 'a few lines for each request' },
  'cli/commands/bitmap/bitmap.ts registerBitmap': { lines: 51, why: 'a few lines for each flag' },
  'cli/commands/copy/copy-flags.ts optionsOf': { lines: 42, why: 'a line for each option' },
  'cli/commands/copy/copy.ts copyCommand': {
    lines: 45,
    why: 'the course of the largest command from flags to report',
  },
  'cli/commands/serve/serve.ts serveCommand': {
    lines: 48,
    why: 'the course of the command from flags to the last client',
  },
  'cli/shell/shell.ts processShell': { lines: 50, why: 'one line for each member' },
  'copy/ends/device-image.ts imageOnDevice': {
    lines: 43,
    why: 'one line for each member of a target',
  },
  'copy/ends/new-file.ts newImage': { lines: 68, why: 'how an image is made, by members' },
  'copy/ends/target.ts goOn': { lines: 43, why: 'each way in which an earlier run may have ended' },
  'copy/ends/target.ts openMade': { lines: 54, why: 'one line for each member of a target' },
  'copy/ends/target.ts prepareTarget': {
    lines: 67,
    why: 'each kind of target, and what is refused before it is opened',
  },
  'copy/view/read-extents.ts readAhead': { lines: 44, why: 'one loop and the state that it keeps' },
  'copy/run/copy-run.ts #copy': { lines: 58, why: 'the course of a copy from plan to report' },
  'files/system-calls.ts declare': { lines: 44, why: 'one line for each call of the system' },
};

function readTree(folder: string, names: RegExp): Map<string, string> {
  const files = readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' });
  const wanted = files.filter((file) => names.test(file));
  return new Map(wanted.map((file) => [file, readFileSync(join(ROOT, folder, file), 'utf8')]));
}

const SOURCES = readTree('src', /\.ts$/);

describe('the sources', () => {
  test('enter rooms and folders that lie below, through their indexes', () => {
    expect(findForbidden(SOURCES)).toEqual([]);
  });

  test('have no files that import each other', () => {
    expect(findCircles(SOURCES)).toEqual([]);
  });

  test('have short files and functions', () => {
    expect(findLong(SOURCES, LONG)).toEqual([]);
  });

  test('export nothing that nobody imports', () => {
    const users = new Map(
      ['test', 'bench', 'examples', 'scripts'].flatMap((folder) => [
        ...readTree(folder, /\.m?ts$|\.mjs$/),
      ]),
    );
    expect(findUnused(SOURCES, users)).toEqual([]);
  });
});

describe('the tests', () => {
  // Support has the places that may: the seed of all tests, and fast-check with it.
  const tests = join(ROOT, 'test');
  const files = readdirSync(tests, { recursive: true, encoding: 'utf8' }).filter(
    (file) => /\.m?ts$|\.mjs$/.test(file) && !file.endsWith('layering.test.ts'),
  );
  const CHANCE =
    /Math\.random|\brandom(Bytes|UUID|Int|Fill|FillSync)\b|getRandomValues|from 'fast-check'/;

  test('take their chance from a seed: Random, noise(), and test/support/fast-check.ts', () => {
    const found = files.filter((file) => CHANCE.test(readFileSync(join(tests, file), 'utf8')));
    expect(found).toEqual(['support/fast-check.ts']);
  });

  test('of units start no programs, which the tests in test/integration may', () => {
    // This file shows the rule what it finds.
    expect(findStarters(readTree('test', /(?<!unit\/layering\.test)\.m?ts$|\.mjs$/))).toEqual([]);
  });

  test('of units need no build: nothing that Node loads by itself, in threads or processes', () => {
    const LOADED = /node:worker_threads|process\.execPath|support\/run-cli\.js'/;
    const units = files.filter((file) => file.startsWith('unit/'));
    const found = units.filter((file) => LOADED.test(readFileSync(join(tests, file), 'utf8')));
    expect(found).toEqual([]);
  });
});

/** What the rules of rooms find in one file. */
function forbidden(file: string, text: string): string[] {
  return findForbidden(new Map([[file, text]]));
}

describe('the rules find', () => {
  test.each([
    [
      'a lower room that looks up',
      'bitmap/a.ts',
      "import { b } from '../block/index.js';",
      /bitmap does not lie above block/,
    ],
    [
      'a room that looks at one beside it',
      'errors/a.ts',
      "import { b } from '../util/index.js';",
      /errors does not lie above util/,
    ],
    [
      'a type that comes from above',
      'extent/a.ts',
      "import type { B } from '../copy/index.js';",
      /extent does not lie above copy/,
    ],
    [
      'a re-export from above',
      'block/a.ts',
      "export * from '../copy/index.js';",
      /block does not lie above copy/,
    ],
    [
      'an import at run time',
      'wasm/a.ts',
      "await import('../bitmap/index.js');",
      /wasm does not lie above bitmap/,
    ],
    [
      'an import for its effect',
      'util/a.ts',
      "import '../wasm/index.js';",
      /util does not lie above wasm/,
    ],
    [
      'a room that is entered past its index',
      'copy/a.ts',
      "import { b } from '../block/b.js';",
      /entered through its index/,
    ],
    [
      'a folder of another room without a door',
      'copy/a.ts',
      "import { b } from '../block/open/index.js';",
      /entered through its index/,
    ],
    [
      'a folder that is entered past its index',
      'copy/plan/a.ts',
      "import { b } from '../options/b.js';",
      /src\/copy\/options is entered through its index/,
    ],
    [
      'a folder that looks up',
      'copy/plan/a.ts',
      "import { b } from '../run/index.js';",
      /src\/copy\/plan does not lie above src\/copy\/run/,
    ],
    [
      'a folder that looks at the files above it',
      'copy/plan/a.ts',
      "import { b } from '../index.js';",
      /src\/copy\/plan lies below the files of src\/copy/,
    ],
    [
      'filters that import a driver',
      'block/filters/a.ts',
      "import { b } from '../drivers/index.js';",
      /src\/block\/filters does not lie above src\/block\/drivers/,
    ],
    [
      'a protocol that knows devices',
      'nbd/a.ts',
      "import { b } from '../block/index.js';",
      /knows only errors, util, extent/,
    ],
    [
      'an end of NBD that knows the other',
      'nbd/server/a.ts',
      "import { b } from '../client/index.js';",
      /src\/nbd\/server does not lie above src\/nbd\/client/,
    ],
    [
      'a command that another one uses',
      'cli/commands/a/a.ts',
      "import { b } from '../b/index.js';",
      /src\/cli\/commands\/a does not lie above src\/cli\/commands\/b/,
    ],
    [
      'a command that is imported',
      'copy/a.ts',
      "import { b } from '../cli/index.js';",
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
      "import { b } from '../testing/index.js';",
      /shipped for others/,
    ],
    ['a room that is not known', 'attic/a.ts', '', /say nothing of src\/attic/],
    ['a folder that is not known', 'copy/attic/a.ts', '', /say nothing of src\/copy\/attic/],
    ['WASM outside its room', 'block/a.ts', 'new WebAssembly.Memory({});', /raw pointers/],
    ['exports of an instance', 'copy/a.ts', 'wasm.instance.exports.f();', /raw pointers/],
    [
      'threads outside their rooms',
      'nbd/a.ts',
      "import { W } from 'node:worker_threads';",
      /threads exist/,
    ],
    [
      'an end of NBD that reads bytes by itself',
      'nbd/server/a.ts',
      'view.getUint32(0);',
      /messages are read where they are written/,
    ],
    ['atomics outside their rooms', 'copy/move/a.ts', 'Atomics.load(a, 0);', /threads exist/],
  ])('%s', (_what, file, text, message) => {
    const violations = forbidden(file, text);
    expect(violations).toHaveLength(1);
    expect(violations[0]).toMatch(message);
  });

  test('files that import each other, however far around', () => {
    const tree = new Map([
      ['util/a.ts', "import { b } from './b.js';"],
      ['util/b.ts', "import { c } from './c.js';"],
      ['util/c.ts', "import type { a } from './a.js';"],
    ]);
    expect(findCircles(tree)).toEqual([
      expect.stringContaining('util/a.ts -> util/b.ts -> util/c.ts -> util/a.ts'),
    ]);
  });

  test('a file that grew too long', () => {
    expect(findLong(new Map([['util/a.ts', '\n'.repeat(501)]]), {})).toEqual([
      expect.stringMatching(/501 lines/),
    ]);
  });

  const body = (lines: number) => '      step();\n'.repeat(lines);

  test.each([
    ['a function', `export async function f(\n  a: number,\n): Promise<void> {\n${body(40)}}\n`],
    ['a function with a short head', `function f(): void {\n${body(40)}}\n`],
    ['an arrow function', `const f = (a: number) => {\n${body(40)}};\n`],
    ['a method', `class A {\n  async f(a: number): Promise<void> {\n${body(40)}  }\n}\n`],
    ['a private method', `class A {\n  #f(): void {\n${body(40)}  }\n}\n`],
  ])('%s that grew too long', (_what, text) => {
    const [found] = functionsOf(text);
    expect(found.length).toBeGreaterThan(40);
    expect(findLong(new Map([['util/a.ts', text]]), {})).toHaveLength(1);
  });

  test('a function above 70 lines, whatever its reason', () => {
    const tree = new Map([['util/a.ts', `function f(): void {\n${body(70)}}\n`]]);
    expect(findLong(tree, { 'util/a.ts f': { lines: 100, why: '' } })).toHaveLength(1);
  });

  test('a reason for a function that is gone', () => {
    expect(findLong(new Map(), { 'util/a.ts f': { lines: 50, why: '' } })).toEqual([
      expect.stringMatching(/is not there/),
    ]);
  });

  test('a unit test that starts a program, by itself or however far around', () => {
    const starter = "import { execFileSync } from 'node:child_process';";
    const tree = new Map([
      ['unit/a.test.ts', starter],
      ['unit/b.test.ts', "import { b } from '../support/b.js';"],
      ['support/b.ts', "import { c } from './c.js';"],
      ['support/c.ts', starter],
      ['unit/d.test.ts', "import type { ChildProcess } from 'node:child_process';"],
      ['integration/e.test.ts', starter],
    ]);
    expect(findStarters(tree)).toEqual([
      expect.stringMatching(/unit\/a\.test\.ts starts programs, by itself/),
      expect.stringMatching(/unit\/b\.test\.ts starts programs, through support\/c\.ts/),
    ]);
  });

  test('a function and an entry of an index that nobody imports', () => {
    const tree = new Map([
      ['util/a.ts', 'export function used() {}\nexport function unused() {}\n'],
      ['util/index.ts', "export { used } from './a.js';\n"],
    ]);
    expect(findUnused(tree, new Map())).toEqual([
      expect.stringMatching(/util\/a.ts exports unused/),
      expect.stringMatching(/util\/index.ts exports used/),
    ]);
  });
});

describe('the rules allow', () => {
  test.each([
    ['looking down', 'copy/a.ts', "import { b } from '../bitmap/index.js';"],
    ['files of one folder', 'nbd/wire/a.ts', "import { b } from './b.js';"],
    ['NBD to use errors', 'nbd/a.ts', "import { b } from '../errors/index.js';"],
    ['an end to use the stream', 'nbd/client/a.ts', "import { b } from '../stream/index.js';"],
    [
      'a folder with a door to be entered',
      'block/a.ts',
      "import { b } from '../nbd/address/index.js';",
    ],
    ['to load one file on demand', 'copy/run/a.ts', "await import('../threads/b.js');"],
    ['the public index to name all rooms', 'index.ts', "export * from './copy/index.js';"],
    ['test suites to use devices', 'testing/a.ts', "import { b } from '../block/index.js';"],
    ['comments to talk of threads', 'block/a.ts', '/** Unlike Atomics */ // and WebAssembly'],
    ['threads in the copy loop', 'copy/threads/a.ts', "import { Piscina } from 'piscina';"],
  ])('%s', (_what, file, text) => {
    expect(forbidden(file, text)).toEqual([]);
  });

  test('packages and Node to be imported by all', () => {
    const text =
      "import fs from 'node:fs';\nimport {\n  a,\n} from 'x';\nimport { b } from './b.js';";
    expect(importsOf('util/a.ts', text)).toEqual(['util/b.ts']);
  });
});
