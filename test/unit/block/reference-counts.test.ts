import { expect, test } from 'vitest';
import { ReferenceCounts } from '#dist/block/drivers/qcow2/check/reference-counts.js';

test('a cluster with more references than 16 bits hold is counted beside its neighbours', () => {
  const counts = new ReferenceCounts(10, 13);
  const wanted = [65_534, 65_535, 70_000];
  for (const [i, count] of wanted.entries()) {
    for (let added = 0; added < count; added++) counts.add(10 + i);
  }
  expect([10, 11, 12].map((cluster) => counts.get(cluster))).toEqual(wanted);
});
