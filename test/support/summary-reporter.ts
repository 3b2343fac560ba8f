import type { Reporter, TestModule, TestRunEndReason } from 'vitest/node';

/**
 * Ends the output with one plain line, `N passed, N failed`, that tools can read. A file that cannot
 * be collected and an unhandled error count as failures, because they hide tests that should have run.
 */
export default class SummaryReporter implements Reporter {
  onTestRunEnd(
    modules: readonly TestModule[],
    unhandledErrors: readonly unknown[],
    _reason: TestRunEndReason,
  ): void {
    let passed = 0;
    let failed = unhandledErrors.length;
    for (const module of modules) {
      failed += module.errors().length;
      for (const test of module.children.allTests()) {
        const { state } = test.result();
        if (state === 'passed') passed++;
        if (state === 'failed') failed++;
      }
    }
    // After the default reporter, whose closing lines are printed in the same turn.
    process.once('exit', () => process.stdout.write(`${passed} passed, ${failed} failed\n`));
  }
}
