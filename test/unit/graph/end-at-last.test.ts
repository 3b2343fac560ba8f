import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { LacunaError } from '#dist/errors/index.js';
import { endAtLast } from '#dist/graph/jobs/group/index.js';
import type { JobControl } from '#dist/job/index.js';

test('a job that must end without asking anybody lets the guest work between its attempts', async () => {
  const ending = new AbortController();
  ending.abort();
  const control = { ending: ending.signal } as JobControl;
  const told: string[] = [];
  await endAtLast(async () => {
    told.push('attempt');
    if (told.length > 3) return;
    await sleep(100);
    // Much shorter than the attempt has held it up.
    setTimeout(() => told.push('guest'), 5);
    throw new LacunaError('ERR_GRAPH_BUSY', 'requests in flight did not end');
  }, control);
  expect(told).toEqual(['attempt', 'guest', 'attempt', 'guest', 'attempt']);
});
