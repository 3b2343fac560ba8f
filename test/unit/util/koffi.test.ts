import { expect, it } from 'vitest';
import { bindCalls } from '#dist/util/index.js';

it('binds nothing where the C library lacks a function', async () => {
  const missing = bindCalls((koffi) => koffi.load(null).func('int no_such_function(int)'));
  await expect(missing).resolves.toBeUndefined();
});
