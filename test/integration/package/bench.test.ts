import { spawnSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';

/** Tiny runs of every bench, so that none of them rots; their times mean nothing. */
describe('npm run bench', () => {
  test.each([
    'bitmap',
    'copy',
    'daemon',
    'dirty-bitmaps',
    'graph',
    'live',
    'nbd',
    'qcow2',
    'repository',
  ])('-- %s works and verifies its outputs', (name) => {
    const args = ['run', '-s', 'bench', '--', name, '--smoke', '--json'];
    const { status, stdout, stderr } = spawnSync('npm', args, { encoding: 'utf8' });
    expect(status, stderr).toBe(0);
    const results = JSON.parse(stdout) as { medianMs: number | null }[];
    expect(results.length).toBeGreaterThan(1);
    for (const { medianMs } of results) {
      // Null: a contender that cannot.
      if (medianMs !== null) expect(medianMs).toBeGreaterThan(0);
    }
  });

  test('names the benches there are when it is asked for another', () => {
    const { status, stderr } = spawnSync('npm', ['run', '-s', 'bench', '--', 'nope'], {
      encoding: 'utf8',
    });
    expect(status).toBe(2);
    expect(stderr).toContain('copy');
  });
});
