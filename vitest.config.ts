import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

const MINUTE_MS = 60_000;
/** Only what hangs takes so long, even on a busy machine. */
const LIMIT_MS = limitMs(process.env.LACUNA_RUNS ?? '1x');

/** Ten minutes for what a test usually does, a day where it is told a number. */
function limitMs(runs: string): number {
  return runs.endsWith('x') ? Number.parseInt(runs, 10) * 10 * MINUTE_MS : 24 * 60 * MINUTE_MS;
}

/**
 * Tests run against the built package (`dist`), the very files that ship: worker threads and WASM
 * are loaded by path, so a transformed copy of the sources would not be the thing that users run.
 */
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    setupFiles: ['./test/support/equal-bytes.ts'],
    pool: 'forks',
    // Many wait for programs of others most of the time.
    maxWorkers: Math.max(4, availableParallelism() - 1),
    testTimeout: LIMIT_MS,
    hookTimeout: LIMIT_MS,
    expect: { poll: { timeout: MINUTE_MS, interval: 20 } },
    server: { deps: { external: [/\/dist\//] } },
    reporters: ['default', './test/support/summary-reporter.ts'],
  },
});
