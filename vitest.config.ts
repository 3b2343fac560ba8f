import { defineConfig } from 'vitest/config';

/**
 * Tests run against the built package (`dist`), the very files that ship: worker threads and WASM
 * are loaded by path, so a transformed copy of the sources would not be the thing that users run.
 */
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    testTimeout: 60_000,
    hookTimeout: 120_000,
    server: { deps: { external: [/\/dist\//] } },
    reporters: ['default', './test/support/summary-reporter.ts'],
  },
});
