import { expect, test } from 'vitest';
import { ExtentList } from '#dist/extent/index.js';

test('a list of few extents has no memory outside the heap, which would be given back late on a busy machine', () => {
  const before = process.memoryUsage().arrayBuffers;
  const lists = Array.from({ length: 10_000 }, () => {
    const list = ExtentList.of(0, 512, 1);
    for (let i = 0; i < 7; i++) list.push(512, i % 2);
    return list;
  });
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(10_000);
  expect(lists.at(-1)?.count).toBe(8);
});

test('a list grows, and keeps what it had', () => {
  const list = new ExtentList(512);
  for (let i = 0; i < 1000; i++) list.push(512, i % 2);
  expect([...list].map(({ offset, length, flags }) => [offset, length, flags])).toEqual(
    Array.from({ length: 1000 }, (_, i) => [512 + i * 512, 512, i % 2]),
  );
});
