import { expect, it } from 'vitest';
import { bindCalls } from '#dist/util/index.js';

it('no calls are bound where the C library lacks one of them', () => {
  const missing = bindCalls((koffi) => koffi.load(null).func('int no_such_function(int)'));
  expect(missing).toBeUndefined();
});
