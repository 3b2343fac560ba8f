import { describe, expect, it } from 'vitest';
import { explore } from './spin.js';

const EXCLUSION = /inside==1/;
const ASLEEP = /invalid end state/;
const LOST = /newest\[/;
const TWICE = /claims\[/;
const OVERTAKEN = /target\[/;

/**
 * The lock and the claim, in every order that the steps of a few threads can come in. What a model
 * proves it proves of itself only: the stress test holds the compiled kernels to the same.
 */
describe('spin shows that', () => {
  it('the lock keeps all but one out, and leaves nobody asleep', async () => {
    const { errors, states, reason } = await explore('lock', []);
    expect(reason).toBe('');
    expect(errors).toBe(0);
    expect(states).toBeGreaterThan(100_000);
  });

  it.each([
    ['looks and takes in two steps', 'TEST_THEN_SET', EXCLUSION],
    ['goes in without waiting', 'NO_WAIT', EXCLUSION],
    ['has no state for those who wait', 'TWO_STATES', ASLEEP],
    ['sleeps without looking again', 'BLIND_WAIT', ASLEEP],
    ['wakes a thread before it is free', 'EARLY_NOTIFY', ASLEEP],
  ])('a lock that %s is refuted', async (_, broken, reason) => {
    expect((await explore('lock', [broken])).reason).toMatch(reason);
  });

  it('a claim loses no set, and takes nothing twice', async () => {
    const { errors, states, reason } = await explore('claim', []);
    expect(reason).toBe('');
    expect(errors).toBe(0);
    expect(states).toBeGreaterThan(100_000);
  });

  it.each([
    ['clears after the read', 'LATE_CLEAR', LOST],
    ['looks and clears in two steps', 'SPLIT_CLAIM', TWICE],
  ])('a claim that %s is refuted', async (_, broken, reason) => {
    expect((await explore('claim', [broken])).reason).toMatch(reason);
  });

  it.each([
    ['comes before the write', 'EARLY_SET', LOST],
    ['takes no lock', 'UNLOCKED_SET', /newest|claims|count/],
    ['unlocks before its last store', 'EARLY_UNLOCK', /count==/],
    ['is left out after a failure', 'NO_RETURN', LOST],
  ])('a set that %s is refuted', async (_, broken, reason) => {
    expect((await explore('claim', [broken])).reason).toMatch(reason);
  });

  it('one copier always leaves the newest content, two may overtake each other', async () => {
    expect((await explore('claim', ['TARGET', 'COPIERS=1'])).errors).toBe(0);
    expect((await explore('claim', ['TARGET', 'COPIERS=2'])).reason).toMatch(OVERTAKEN);
  });
});
