import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const MINUTE_MS = 60_000;
/** Only what hangs takes so long, even on a busy machine. */
const LIMIT_MS = limitMs(process.env.LACUNA_RUNS ?? '1x');

/** Ten minutes for what a test usually does, a day where it is told a number. */
function limitMs(runs: string): number {
  return runs.endsWith('x') ? Number.parseInt(runs, 10) * 10 * MINUTE_MS : 24 * 60 * MINUTE_MS;
}

const UNIT = 'test/unit/**/*.test.ts';
const SOURCES = fileURLToPath(new URL('./src/', import.meta.url));

const MODULES = fileURLToPath(new URL('./dist/', import.meta.url));

/**
 * Tests that look at a part of the package share its classes with the rest of it, so they take all from the single modules.
 * Programs that tests start, and the examples, import the package as users do, in few files.
 */
const SINGLE = [
  { find: /^lacuna\/(.*)$/, replacement: `${MODULES}$1/index.js` },
  { find: /^lacuna$/, replacement: `${MODULES}index.js` },
];

/** What is built, and where its source is. */
const BUILT = [
  { find: /^#dist\/(.*)\.js$/, replacement: `${SOURCES}$1.ts` },
  { find: /^lacuna\/(.*)$/, replacement: `${SOURCES}$1/index.ts` },
  { find: /^lacuna$/, replacement: `${SOURCES}index.ts` },
];

/**
 * Unit tests run the sources, so that they need no build. All others run against the built package (`dist`), the very
 * files that ship: worker threads are loaded by path, so the sources would not be the thing that users run.
 */
export default defineConfig({
  test: {
    setupFiles: ['./test/support/equal-bytes.ts'],
    pool: 'forks',
    // Many wait for programs of others most of the time.
    maxWorkers: Math.max(4, availableParallelism() - 1),
    testTimeout: LIMIT_MS,
    hookTimeout: LIMIT_MS,
    expect: { poll: { timeout: 5 * MINUTE_MS, interval: 20 } },
    reporters: ['default', './test/support/summary-reporter.ts'],
    projects: [
      {
        extends: true,
        resolve: { alias: BUILT },
        test: {
          name: 'unit',
          include: [UNIT],
          globalSetup: ['./test/support/compile-kernels.ts'],
        },
      },
      {
        extends: true,
        resolve: { alias: SINGLE },
        test: {
          name: 'built',
          include: ['test/**/*.test.ts'],
          exclude: [UNIT],
          server: { deps: { external: [/\/dist\//] } },
        },
      },
    ],
  },
});
