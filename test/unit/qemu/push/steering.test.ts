/** How several jobs of QEMU's are steered: told one change after the other, and no more than they need. */
import { LacunaError } from 'lacuna/errors';
import { beforeEach, expect, test } from 'vitest';
import { Steering } from '#dist/qemu/push/steering.js';

/** Jobs of a QEMU, which answers when it is let. */
class FakeMonitor {
  readonly told: string[] = [];
  readonly jobs = new Map<string, string>([
    ['a', 'running'],
    ['b', 'running'],
  ]);
  failure: LacunaError | undefined;
  /** Resolves before each answer. */
  answers: Promise<void> = Promise.resolve();

  async executeOnce(command: string, args: object): Promise<void> {
    this.told.push(`${command} ${Object.values(args).join(' ')}`);
    await this.answers;
    if (this.failure !== undefined) throw this.failure;
  }

  async execute(): Promise<{ id: string; status: string }[]> {
    return [...this.jobs].map(([id, status]) => ({ id, status }));
  }
}

let monitor: FakeMonitor;
let failures: string[];

function steering(rate?: number): Steering {
  return new Steering({
    monitor: monitor as never,
    ...{ jobs: ['a', 'b'], rate },
    failed: (why) => failures.push(why),
  });
}

beforeEach(() => {
  monitor = new FakeMonitor();
  failures = [];
});

test('jobs share a rate, and those that are left share it again', async () => {
  const jobs = steering();
  jobs.setRate(101);
  await expect
    .poll(() => monitor.told)
    .toEqual(['block-job-set-speed a 51', 'block-job-set-speed b 51']);
  jobs.ended('a');
  await expect.poll(() => monitor.told.at(-1)).toBe('block-job-set-speed b 101');
  jobs.ended('b');
  jobs.setRate(5);
  expect(monitor.told).toHaveLength(3);
});

test('what is as it shall be is not told again, and what changes meanwhile is told last', async () => {
  let answer = () => {};
  monitor.answers = new Promise((resolve) => {
    answer = resolve;
  });
  const jobs = steering(10);
  jobs.setRate(10);
  expect(monitor.told).toEqual([]);
  jobs.setRate(20);
  jobs.setRate(30);
  jobs.pause(true);
  jobs.setRate(undefined);
  jobs.pause(false);
  answer();
  await expect
    .poll(() => monitor.told)
    .toEqual(['block-job-set-speed a 10', 'block-job-set-speed a 0', 'block-job-set-speed b 0']);
});

const refused = new LacunaError('ERR_QMP_COMMAND', 'QEMU refuses it');

test('a job that has ended is told nothing more, and nothing has failed', async () => {
  monitor.failure = refused;
  monitor.jobs.set('a', 'concluded');
  monitor.jobs.delete('b');
  const jobs = steering();
  jobs.setRate(2);
  await expect.poll(() => monitor.told.length).toBe(2);
  jobs.setRate(4);
  jobs.pause(true);
  expect(monitor.told).toHaveLength(2);
  expect(failures).toEqual([]);
});

test('a job that goes on and does not take its speed fails, and one that is paused already does not', async () => {
  monitor.failure = refused;
  const jobs = steering();
  jobs.pause(true);
  await expect.poll(() => monitor.told).toEqual(['job-pause a', 'job-pause b']);
  expect(failures).toEqual([]);
  jobs.setRate(2);
  await expect
    .poll(() => failures)
    .toEqual(['the speed of its job "a" cannot be changed: QEMU refuses it']);
  jobs.pause(false);
  expect(monitor.told).toHaveLength(3);
});

test('nothing is told any more once QEMU does not answer, which is told elsewhere', async () => {
  monitor.failure = new LacunaError('ERR_QMP_DISCONNECTED', 'it is gone');
  const jobs = steering();
  jobs.setRate(2);
  await expect.poll(() => monitor.told).toEqual(['block-job-set-speed a 1']);
  jobs.setRate(4);
  expect(monitor.told).toHaveLength(1);
  expect(failures).toEqual([]);
});
