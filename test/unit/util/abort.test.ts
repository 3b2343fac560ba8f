import { getMaxListeners, setMaxListeners } from 'node:events';
import { expect, it, vi } from 'vitest';
import { onAbort, orAborted } from '#dist/util/index.js';

it('a listener hears a signal whose owner has taken its limit of listeners away', async () => {
  const abort = new AbortController();
  setMaxListeners(0, abort.signal);
  const listener = vi.fn();
  onAbort(abort.signal, listener);
  const waiting = orAborted(new Promise(() => {}), abort.signal);
  abort.abort();
  expect(listener).toHaveBeenCalledOnce();
  await expect(waiting).rejects.toMatchObject({ code: 'ERR_ABORTED' });
});

it('a signal loses its default limit of listeners, and keeps one that its owner has set', () => {
  const usual = new AbortController().signal;
  onAbort(usual, () => {});
  expect(getMaxListeners(usual)).toBe(Number.POSITIVE_INFINITY);
  const limited = new AbortController().signal;
  setMaxListeners(3, limited);
  onAbort(limited, () => {});
  expect(getMaxListeners(limited)).toBe(3);
});
