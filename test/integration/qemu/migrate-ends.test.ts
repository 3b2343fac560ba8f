/**
 * Migrations that end in the middle: given up, cancelled by somebody else, or with the process that steers them or the destination
 * killed, at any command. The source goes on with its own disks, or the destination runs, and never both.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { LacunaError } from 'lacuna/errors';
import { Random } from 'lacuna/testing';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { firstSeed, runsOr } from '../../support/long-run.js';
import { MovingMachine } from '../../support/moving-machine.js';
import { run, usePeers } from '../../support/peers.js';
import type { PassingCommand } from '../../support/qmp-proxy.js';

const CHILD = fileURLToPath(new URL('migrate-child.mjs', import.meta.url));

const HAPPENINGS = [
  'it is given up',
  'our process is killed',
  'the destination is killed',
  'somebody cancels it',
] as const;

/** What happens, and at which command to the source: before QEMU gets it, or when it has answered and we have not heard. */
interface Case {
  readonly happening: (typeof HAPPENINGS)[number];
  readonly when: 'before' | 'after';
  readonly is: (command: PassingCommand) => boolean;
}

const peers = usePeers('suite');

/** Has a migration meet what happens; its failure, if any. */
async function meet(moving: MovingMachine, { happening, when, is }: Case): Promise<unknown> {
  const { source, destination } = moving;
  let hasHappened = false;
  let end = () => {};
  const pass = async (command: PassingCommand) => {
    if (hasHappened || !is(command)) return;
    hasHappened = true;
    if (happening === 'the destination is killed') await destination.qemu.stop('SIGKILL');
    else if (happening === 'somebody cancels it') await source.other.execute('migrate_cancel');
    else end();
  };
  source.proxy.reset({ [when]: pass });
  try {
    if (happening === 'our process is killed') {
      const given = JSON.stringify({ machine: moving.options, migrate: moving.move });
      const child = spawn(process.execPath, [CHILD, given], { stdio: 'ignore' });
      end = () => {
        child.kill('SIGKILL');
        throw new Error('the child is dead');
      };
      const [code] = await once(child, 'exit');
      return code === 0 ? undefined : 'killed';
    }
    await using machine = await moving.connect();
    const job = machine.migrate(moving.move);
    end = () => job.stop();
    return await job.then(() => undefined).catch((error: unknown) => error);
  } finally {
    source.proxy.hooks = {};
  }
}

interface State {
  /** `moves` while a migration is under way. */
  readonly source: 'runs' | 'moves' | 'stands' | 'gone';
  readonly destination: 'runs' | 'stands' | 'gone';
}

async function stateOf(moving: MovingMachine): Promise<State> {
  const runs = async ({ other }: MovingMachine['source']) => {
    try {
      return (await other.execute('query-status')).running ? 'runs' : 'stands';
    } catch {
      return 'gone';
    }
  };
  // In this order: a machine that has moved runs on the source no more.
  const destination = await runs(moving.destination);
  const source = await runs(moving.source);
  expect([source, destination]).not.toEqual(['runs', 'runs']);
  const { status = 'none' } =
    source === 'gone' ? {} : await moving.source.other.execute('query-migrate').catch(() => ({}));
  const isAtRest = ['none', 'completed', 'failed', 'cancelled'].includes(status);
  return { source: isAtRest ? source : 'moves', destination };
}

/** Waits until the machine runs for good, on one side alone; whether it has moved. */
async function decided(moving: MovingMachine): Promise<boolean> {
  let state: State | undefined;
  const isDecided = async () => {
    state = await stateOf(moving);
    return state.source === 'runs' || (state.source === 'gone' && state.destination === 'runs');
  };
  await expect.poll(isDecided).toBe(true);
  return state!.destination === 'runs';
}

/** A process whose migration is at its last round, and the processes that guard it. */
async function pausedChild(moving: MovingMachine) {
  const given = JSON.stringify({ machine: moving.options, migrate: moving.move });
  const child = spawn(process.execPath, [CHILD, given], { stdio: 'ignore' });
  const { passed } = moving.source.proxy;
  await new Promise<void>((resolve) => {
    moving.source.proxy.reset({
      before: ({ name }) => {
        if (name !== 'block-export-add' || !passed.includes('migrate')) return;
        resolve();
        return new Promise(() => {});
      },
    });
  });
  const tasks = readdirSync(`/proc/${child.pid}/task`);
  const guards = tasks
    .flatMap((task) => readFileSync(`/proc/${child.pid}/task/${task}/children`, 'utf8').split(' '))
    .filter((pid) => pid !== '')
    .map(Number);
  return { child, guards };
}

async function recover(moving: MovingMachine): Promise<void> {
  await using machine = await moving.connect();
  const { warnings, unknown } = await machine.recover({ generation: moving.generation });
  expect({ warnings, unknown }).toEqual({ warnings: [], unknown: [] });
}

/** What the next one finds is a machine that goes on, with nothing left in it. */
async function goOn(moving: MovingMachine, hasMoved: boolean): Promise<void> {
  if (hasMoved) await moving.moved();
  else await moving.endDestination();
  await expect.poll(() => moving.leftovers()).toEqual([]);
}

async function checkContent(moving: MovingMachine): Promise<void> {
  for (const name of moving.names) {
    const bytes = await moving.read(moving.source, name);
    expect(bytes.equals(moving.content[name]), name).toBe(true);
  }
}

describe('a migration', () => {
  test('that ends in the middle leaves one machine that runs, and says what to do', async () => {
    const moving = await MovingMachine.start(peers);
    const { passed } = moving.source.proxy;
    const at =
      (wanted: string) =>
      ({ name }: PassingCommand) =>
        name === wanted;
    const whilePaused =
      (wanted: string) =>
      ({ name }: PassingCommand) =>
        name === wanted && passed.includes('migrate');
    const cases: readonly (readonly [Case['happening'], Case['when'], Case['is'], string?])[] = [
      ['it is given up', 'before', at('block-set-write-threshold'), 'ERR_JOB_STOPPED'],
      ['it is given up', 'before', at('migrate'), 'ERR_JOB_STOPPED'],
      ['it is given up', 'before', whilePaused('block-export-add'), 'ERR_JOB_STOPPED'],
      ['our process is killed', 'after', at('transaction')],
      ['our process is killed', 'after', at('migrate')],
      ['our process is killed', 'after', whilePaused('nbd-server-start')],
      ['the destination is killed', 'before', at('migrate'), 'ERR_MIGRATION_FAILED'],
      [
        'the destination is killed',
        'before',
        whilePaused('block-export-add'),
        'ERR_MIGRATION_FAILED',
      ],
      ['the destination is killed', 'after', at('migrate-continue'), 'ERR_MIGRATION_FAILED'],
      ['somebody cancels it', 'before', at('migrate-continue'), 'ERR_MIGRATION_FAILED'],
    ];
    await moving.await();
    for (const [happening, when, is, code] of cases) {
      await moving.write('vda', 65536 * 7, 65536, 1 + (passed.length % 250));
      const failure = await meet(moving, { happening, when, is });
      if (code === undefined) expect(failure).toBe('killed');
      else {
        expect(failure).toBeInstanceOf(LacunaError);
        expect((failure as LacunaError).code).toBe(code);
      }
      expect(await decided(moving), `${happening} ${when}`).toBe(false);
      // What a process that was killed has left, the next one takes away. All others leave nothing.
      if (code === undefined) await moving.endDestination();
      else await goOn(moving, false);
      await moving.await();
    }
    // Nobody is there to tell the destination to go on: it does all the same.
    expect(
      await meet(moving, {
        ...{ happening: 'our process is killed', when: 'after', is: at('migrate-continue') },
      }),
    ).toBe('killed');
    expect(await decided(moving)).toBe(true);
    await goOn(moving, true);
    await checkContent(moving);
  });

  test('that somebody cancels just when the machine has stopped gives up, and the machine goes on', async () => {
    const moving = await MovingMachine.start(peers);
    const { qemu, other } = moving.source;
    // On one processor, QEMU takes the command before its migration has got as far as to wait.
    await run('taskset', ['-a', '-c', '-p', '0', String(qemu.pid)]);
    for (let turn = 0; turn < 3; turn++) {
      await moving.await();
      await using machine = await moving.connect();
      using stops = other.events(['STOP']);
      const cancelled = stops.next().then(() => other.execute('migrate_cancel'));
      await expect(machine.migrate(moving.move)).rejects.toMatchObject({
        code: 'ERR_MIGRATION_FAILED',
        message: expect.stringContaining('the source goes on with its own disks'),
      });
      await cancelled;
      expect(await decided(moving)).toBe(false);
      await goOn(moving, false);
    }
  });

  test('whose process and guard are both killed leaves a source that waits, until somebody recovers', async () => {
    const moving = await MovingMachine.start(peers);
    await moving.await();
    const { child, guards } = await pausedChild(moving);
    expect(guards).toHaveLength(1);
    for (const pid of guards) process.kill(pid, 'SIGKILL');
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
    moving.source.proxy.cut();
    moving.source.proxy.reset();
    expect(await stateOf(moving)).toEqual({ source: 'moves', destination: 'stands' });
    await using machine = await moving.connect();
    await machine.recover({ generation: moving.generation });
    expect(await decided(moving)).toBe(false);
    await expect.poll(() => moving.leftovers()).toEqual([]);
    const capabilities = await moving.source.other.execute('query-migrate-capabilities');
    const waits = capabilities.find(({ capability }) => capability === 'pause-before-switchover');
    expect(waits!.state).toBe(false);
  });

  test('whose process is killed in the switch is ended by the process that guards it, and leaves the destination as it was', async () => {
    const moving = await MovingMachine.start(peers);
    await moving.await();
    const { source, destination } = moving;
    const before = await destination.other.execute('query-migrate-capabilities');
    const given = JSON.stringify({ machine: moving.options, migrate: moving.move });
    const child = spawn(process.execPath, [CHILD, given], { stdio: 'ignore' });
    source.proxy.reset({
      before: async ({ name }) => {
        // The plan has seen it run, and the guard was told so.
        if (name === 'migrate') await source.other.execute('stop');
      },
      after: ({ name }) => {
        if (name !== 'migrate-continue') return;
        child.kill('SIGKILL');
        throw new Error('the child is dead');
      },
    });
    await once(child, 'exit');
    const isThere = async () => (await stateOf(moving)).source;
    await expect.poll(isThere).toBe('gone');
    expect(await stateOf(moving)).toEqual({ source: 'gone', destination: 'stands' });
    expect(await destination.other.execute('query-migrate-capabilities')).toEqual(before);
  });

  test('whose destination dies once the source has handed over goes back to the source', async () => {
    const moving = await MovingMachine.start(peers);
    await moving.await();
    await using machine = await moving.connect();
    const { destination } = moving;
    destination.proxy.reset({
      before: async ({ name }) => {
        // Its first question to the destination after the switch.
        if (name !== 'query-migrate') return;
        const { status } = await moving.source.other.execute('query-migrate');
        expect(status).toBe('completed');
        await destination.qemu.stop('SIGKILL');
      },
    });
    const failure = await machine.migrate(moving.move).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: 'ERR_MIGRATION_FAILED' });
    expect((failure as Error).message).toContain('the source goes on with its own disks');
    expect(await stateOf(moving)).toEqual({ source: 'runs', destination: 'gone' });
    await expect.poll(() => moving.leftovers()).toEqual([]);
    await moving.write('vda', 65536, 100, 44);
    await checkContent(moving);
  });

  test('whose destination stands still in the switch is for a person to decide, and either side goes on as that says', async () => {
    const moving = await MovingMachine.start(peers);
    // Half a minute is over as soon as the source waits for the destination.
    let late = 0;
    const now = performance.now.bind(performance);
    const clock = vi.spyOn(performance, 'now').mockImplementation(() => now() + late);
    onTestFinished(() => clock.mockRestore());
    const { source } = moving;
    const statusOf = async ({ other }: MovingMachine['source']) =>
      (await other.execute('query-migrate')).status;
    const meetsStopped = async () => {
      late = 0;
      await moving.await();
      await using machine = await moving.connect();
      const { destination } = moving;
      source.proxy.reset({
        before: ({ name }) => {
          if (name === 'migrate-continue') process.kill(destination.qemu.pid, 'SIGSTOP');
        },
        after: async ({ name }) => {
          if (name !== 'query-migrate' || !source.proxy.passed.includes('migrate-continue')) return;
          // QEMU answers migrate-continue before its migration has woken.
          if ((await statusOf(source)) === 'device') late = 31_000;
        },
      });
      const failure = await machine.migrate(moving.move).catch((error: unknown) => error);
      expect(failure).toMatchObject({ code: 'ERR_MIGRATION_UNDECIDED' });
      expect((failure as Error).message).toMatch(
        /kill the destination: .* \(cont\) on the source$/,
      );
      source.proxy.reset();
      expect(await statusOf(source)).toBe('device');
    };
    await meetsStopped();
    await moving.endDestination();
    await expect.poll(() => moving.isRunning(moving.source)).toBe(true);
    await recover(moving);
    expect(await moving.leftovers()).toEqual([]);
    await meetsStopped();
    const { other, qemu } = moving.destination;
    process.kill(qemu.pid, 'SIGCONT');
    // The destination has the machine before the source has heard so.
    for (const host of [moving.destination, source]) {
      await expect.poll(() => statusOf(host)).toBe('completed');
    }
    // It was started with -S.
    await other.execute('cont');
    expect(await stateOf(moving)).toEqual({ source: 'stands', destination: 'runs' });
    const bytes = await moving.read(moving.destination, 'vda');
    expect(bytes.equals(moving.content.vda)).toBe(true);
  });

  test('whose destination lives and does not answer is for a person to decide, and the source waits', async () => {
    const moving = await MovingMachine.start(peers);
    await moving.await();
    await using machine = await moving.connect();
    const { source, destination } = moving;
    destination.proxy.reset({
      before: ({ name }) => {
        if (name !== 'query-migrate') return;
        void destination.proxy.stop();
        throw new Error('nobody can reach it any more');
      },
    });
    await expect(machine.migrate(moving.move)).rejects.toMatchObject({
      code: 'ERR_MIGRATION_UNDECIDED',
    });
    expect(await stateOf(moving)).toEqual({ source: 'stands', destination: 'stands' });
    // What the message says: the destination is there, and is told to go on.
    await destination.other.execute('cont');
    expect(await stateOf(moving)).toEqual({ source: 'stands', destination: 'runs' });
    await source.qemu.stop();
    const bytes = await moving.read(destination, 'vda');
    expect(bytes.equals(moving.content.vda)).toBe(true);
  });

  test('that meets anything at any command leaves one machine that runs, with all that was written', async () => {
    const moving = await MovingMachine.start(peers, 2);
    for (let turn = 0; turn < runsOr(2); turn++) {
      const random = new Random(firstSeed() + turn);
      await moving.await();
      await moving.scribble(random, 2);
      const happening = random.pick(HAPPENINGS);
      const when = random.pick(['before', 'after'] as const);
      const at = random.below(90);
      const here = `${happening} ${when} command ${at}, LACUNA_SEED=${firstSeed() + turn}`;
      await meet(moving, { happening, when, is: ({ index }) => index >= at });
      const hasMoved = await decided(moving);
      if (!hasMoved && happening === 'our process is killed') await recover(moving);
      await goOn(moving, hasMoved);
      for (const name of moving.names) {
        const bytes = await moving.read(moving.source, name);
        expect(bytes.equals(moving.content[name]), here).toBe(true);
      }
    }
  });
});
