import { expect, test } from 'vitest';
import { counted } from '../../../src/util/index.js';

test.each([
  [0, '0 places'],
  [1, '1 place'],
  [2, '2 places'],
])('what is counted is in the singular for 1 alone (%i)', (count, text) => {
  expect(counted(count, 'place')).toBe(text);
});

test('a plural that is more than an s is said', () => {
  expect([1, 3].map((count) => counted(count, 'query', 'queries'))).toEqual([
    '1 query',
    '3 queries',
  ]);
});
