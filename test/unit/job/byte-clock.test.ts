import { expect, it } from 'vitest';
import { ByteClock } from '#dist/job/byte-clock.js';

it('lets bytes go one after the other, as fast as the rate says', () => {
  const clock = new ByteClock(0);
  clock.setRate(1000, 0);
  const tickets = [clock.draw(100, 0), clock.draw(100, 0), clock.draw(100, 0)];
  expect(tickets.map((ticket) => clock.wait(ticket, 0))).toEqual([0, 100, 200]);
  expect(clock.wait(tickets[2], 150)).toBe(50);
});

it('lets all go at once where there is no limit', () => {
  const clock = new ByteClock(0);
  clock.draw(1e12, 0);
  expect(clock.wait(clock.draw(1, 0), 0)).toBe(0);
  expect(clock.pieceSize).toBe(Number.POSITIVE_INFINITY);
});

it('stands while the work is paused', () => {
  const clock = new ByteClock(0);
  clock.setRate(1000, 0);
  clock.draw(100, 0);
  const ticket = clock.draw(100, 0);
  clock.run(false, 40);
  expect(clock.wait(ticket, 5000)).toBe(60);
  clock.run(true, 5000);
  expect(clock.wait(ticket, 5000)).toBe(60);
});

it('forgets time that nobody used, but for a moment', () => {
  const clock = new ByteClock(0);
  clock.setRate(1000, 0);
  clock.draw(25, 10_000);
  expect(clock.wait(clock.draw(100, 10_000), 10_000)).toBe(0);
  expect(clock.wait(clock.draw(100, 10_000), 10_000)).toBe(100);
});

it('lets those that wait follow a new rate, and nobody wait for bytes from before the first rate', () => {
  const clock = new ByteClock(0);
  clock.draw(1e9, 0);
  clock.setRate(1000, 0);
  const [first, second] = [clock.draw(100, 0), clock.draw(100, 0)];
  expect([clock.wait(first, 0), clock.wait(second, 0)]).toEqual([0, 100]);
  clock.setRate(100, 50);
  expect(clock.wait(second, 50)).toBe(500);
});

it('makes pieces that suit the rate, and none that are tiny', () => {
  const clock = new ByteClock(0);
  clock.setRate(1_000_000, 0);
  expect(clock.pieceSize).toBe(2 ** 14);
  clock.setRate(1, 0);
  expect(clock.pieceSize).toBe(4096);
});
