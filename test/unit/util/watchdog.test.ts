import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { afterWaiting, Watchdog } from '#dist/util/index.js';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe('a watchdog', () => {
  test('expires once nothing has happened for its limit', () => {
    const expired = vi.fn();
    new Watchdog(800, expired).watch();
    vi.advanceTimersByTime(799);
    expect(expired).not.toHaveBeenCalled();
    vi.advanceTimersByTime(10);
    expect(expired).toHaveBeenCalledOnce();
  });

  test('gives the whole limit after each progress', () => {
    const expired = vi.fn();
    const watchdog = new Watchdog(800, expired);
    watchdog.watch();
    for (let i = 0; i < 10; i++) {
      vi.advanceTimersByTime(799);
      watchdog.progress();
    }
    vi.advanceTimersByTime(799);
    expect(expired).not.toHaveBeenCalled();
    vi.advanceTimersByTime(120);
    expect(expired).toHaveBeenCalledOnce();
  });

  test('looks at what the sockets have before it expires', () => {
    const expired = vi.fn();
    const watchdog = new Watchdog(800, expired);
    watchdog.watch();
    vi.advanceTimersByTime(700);
    // Runs behind the last tick, as what a socket had waiting does.
    setTimeout(() => watchdog.progress(), 100);
    vi.advanceTimersByTime(110);
    expect(expired).not.toHaveBeenCalled();
  });

  test('expires no more when it was stopped, nor with a limit of 0', () => {
    const expired = vi.fn();
    const watchdog = new Watchdog(800, expired);
    watchdog.watch();
    watchdog.stop();
    new Watchdog(0, expired).watch();
    afterWaiting(500, expired)();
    vi.advanceTimersByTime(10_000);
    expect(expired).not.toHaveBeenCalled();
  });

  test('does not count a tick that comes far too late: the process did not run', () => {
    const expired = vi.fn();
    afterWaiting(800, expired);
    const now = performance.now();
    const clock = vi.spyOn(performance, 'now').mockReturnValue(now + 60_000);
    vi.advanceTimersByTime(100);
    clock.mockRestore();
    vi.advanceTimersByTime(750);
    expect(expired).not.toHaveBeenCalled();
    vi.advanceTimersByTime(60);
    expect(expired).toHaveBeenCalledOnce();
  });
});
