import { getMaxListeners, setMaxListeners } from 'node:events';
import { describe, expect, it, vi } from 'vitest';
import { joinSignals, onAbort, orAborted } from '#dist/util/index.js';
import { rememberedBy } from '../../support/remembered.js';

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

describe('joined signals', () => {
  it('fire with the first of them, for its reason, also where it has fired before', () => {
    const [one, other] = [new AbortController(), new AbortController()];
    const { signal } = joinSignals(one.signal, undefined, other.signal);
    other.abort('why');
    expect([signal.aborted, signal.reason]).toEqual([true, 'why']);
    expect(joinSignals(one.signal, AbortSignal.abort('before')).signal.reason).toBe('before');
  });

  it('are let go of, so that a signal that outlives the work remembers nothing of it', () => {
    const one = new AbortController();
    const { signal, release } = joinSignals(one.signal);
    release();
    one.abort();
    expect(signal.aborted).toBe(false);
    expect(rememberedBy(one.signal)).toBe(0);
  });
});
