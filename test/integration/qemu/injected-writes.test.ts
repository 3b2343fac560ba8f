/**
 * A guest writes between every two commands of a backup, and while its data is read: what is restored must be what its
 * disks held at the one moment of the transaction, byte for byte, and the next increment must have all that came later. The
 * tools that were tried lose such writes without a word.
 */
import type { BackupOptions, BackupSession, Fetch, Machine } from 'lacuna/qemu';
import { Random } from 'lacuna/testing';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { fetchModes, type Guest, LiveMachine, Restored } from '../../support/live-machine.js';
import { firstSeed, runsOr } from '../../support/long-run.js';
import { usePeers } from '../../support/peers.js';

const peers = usePeers('suite');

let live: LiveMachine;
let machine: Machine;
let restored: Restored;
let random: Random;
/** Commands of the last backup. */
let commands = 0;

/** Where the guest writes: before one command, which is behind the answer to the last, or before all. */
type Inject = (position: number) => boolean;

const everywhere: Inject = () => true;
const nowhere: Inject = () => false;

/** How the data of all backups is fetched. */
let fetch: Fetch;

async function setUp(disks: number, how: Fetch): Promise<void> {
  fetch = how;
  live = await LiveMachine.start(peers, { disks });
  machine = await live.connect();
  restored = new Restored(live.names);
  random = new Random(firstSeed());
  for (const guest of live.guests) await guest.scribble(random, 8);
}

async function tearDown(): Promise<void> {
  await machine.close();
  await live.stop();
}

/** Lets the guest write at every place that is chosen; the content at the point in time is what it gives back. */
function watchTransaction(inject: Inject): () => Buffer[] {
  let content: Buffer[] | undefined;
  const scribble = async (position: number) => {
    if (!inject(position)) return;
    for (const guest of live.guests) await guest.scribble(random);
  };
  live.proxy.reset({
    before: async ({ name, index }) => {
      await scribble(index);
      if (name !== 'transaction') return;
      // The first one makes the point in time; where QEMU pushes, another one begins its jobs.
      content ??= live.guests.map((guest) => Buffer.from(guest.content));
    },
  });
  return () => content!;
}

/** Reads all extents into copies of what was restored last, with the guest writing between any two. */
async function readAll(session: BackupSession, duringReads: boolean): Promise<Map<string, Buffer>> {
  const images = new Map<string, Buffer>();
  restored.movedBytes = 0;
  // While QEMU pushes, nothing can be read yet, but the guest writes.
  if (duringReads && fetch === 'push') {
    await Promise.all([
      session.disks[0].totals(),
      ...live.guests.map((one) => one.scribble(random)),
    ]);
  }
  // Of one granule each, or across the borders of several.
  const requestSize = random.pick([65536, 262_144, 1_048_576]);
  for (const disk of session.disks) {
    const image = Buffer.from(restored.disks.get(disk.name)!);
    for await (const { offset, length, data } of disk.extents({ requestSize, requests: 2 })) {
      if (data === undefined) image.fill(0, offset, offset + length);
      else {
        image.set(data, offset);
        restored.movedBytes += length;
      }
      // Where QEMU can, what is stored is given back, and the guest overwrites it without a copy.
      if (duringReads && random.below(2) === 0) await disk.release(offset, length);
      if (duringReads) for (const guest of live.guests) await guest.scribble(random, 1);
    }
    images.set(disk.name, image);
  }
  return images;
}

async function backUp(options: BackupOptions, inject: Inject, duringReads = false): Promise<void> {
  const contentAt = watchTransaction(inject);
  const session = await machine.backup({
    ...{ disks: live.choices, base: restored.generation, fetch },
    ...options,
  });
  const images = await readAll(session, duringReads);
  const { warnings } = await session.finish(({ generation, base }) => {
    // An increment is of use only over what it was made from.
    if (session.disks.some(({ mode }) => mode === 'incremental')) {
      expect(base).toBe(restored.generation);
    }
    if (counts(session, options)) restored.generation = generation;
  });
  commands = live.proxy.passed.length;
  live.proxy.reset();
  expect(warnings).toEqual([]);
  for (const [index, name] of live.names.entries()) {
    const [is, must] = [images.get(name)!, contentAt()[index]];
    expect(firstDifference(is, must), `${name} of ${JSON.stringify(options)}`).toBe(-1);
    if (counts(session, options)) restored.disks.set(name, is);
  }
  // Nothing begins from a differential backup: the next one is over the same base.
  if (options.keepBase) await machine.forget(session.point.generation!);
  expect(await live.leftovers()).toEqual(live.bitmapsOf(restored.generation));
}

/** Whether the next increment begins from a backup. */
function counts({ point }: BackupSession, { keepBase }: BackupOptions): boolean {
  return point.generation !== undefined && !keepBase;
}

/** The next increment must equal the disks, now that nobody writes. */
async function expectNothingLost(): Promise<void> {
  await backUp({}, nowhere);
  const contents = live.guests.map(({ content }: Guest) => content);
  for (const [index, name] of live.names.entries()) {
    expect(firstDifference(restored.disks.get(name)!, contents[index]), name).toBe(-1);
  }
}

function firstDifference(a: Buffer, b: Buffer): number {
  return a.equals(b) ? -1 : a.findIndex((byte, at) => byte !== b[at]);
}

const KINDS = ['auto', 'auto', 'auto', 'full', 'copy', 'differential', 'failed', 'cancelled'];

const kinds = fetchModes().flatMap((how) => [1, 3].map((disks) => [how, disks] as const));

describe.each(kinds)('backups by %s of %i disks that are written meanwhile', (how, disks) => {
  beforeEach(() => setUp(disks, how));
  afterEach(tearDown);

  test('are right wherever between two commands a write falls', async () => {
    await backUp({ mode: 'full' }, nowhere);
    await backUp({}, nowhere);
    expect(commands).toBeGreaterThan(20);
    for (let position = 0; position < commands; position++) {
      await backUp({}, (at) => at === position);
      // Of a full backup, only the bitmaps that it adds can miss a write.
      if (position % 4 === 0) await backUp({ mode: 'full' }, (at) => at === position);
    }
    await expectNothingLost();
  });

  test('are right when writes fall everywhere, whatever kinds and failures come one after another', async () => {
    await backUp({ mode: 'full' }, everywhere, true);
    await backUp({ keepBase: true }, everywhere, true);
    for (let round = 0; round < runsOr(6); round++) {
      const kind = random.pick(KINDS);
      if (kind === 'failed') await failHalfway();
      else if (kind === 'cancelled') await cancelHalfway();
      else if (kind === 'differential') await backUp({ keepBase: true }, everywhere, true);
      else await backUp({ mode: kind as 'auto' }, everywhere, true);
    }
    await expectNothingLost();
  });
});

async function failHalfway(): Promise<void> {
  watchTransaction(everywhere);
  const session = await machine.backup({
    ...{ disks: live.choices, base: restored.generation, fetch },
  });
  for await (const _ of session.disks[0].extents()) break;
  await session.fail();
  live.proxy.reset();
  expect(await live.leftovers()).toEqual(live.bitmapsOf(restored.generation));
}

/** Somebody else cancels the job: the view shows what is now there, so nothing of it may count. */
async function cancelHalfway(): Promise<void> {
  watchTransaction(everywhere);
  // So slowly that it does not end before.
  const slow = fetch === 'push' && { pushRate: 1 };
  const session = await machine.backup({
    ...{ disks: live.choices, base: restored.generation, fetch },
    ...slow,
  });
  const jobs = await live.other.execute('query-jobs');
  await live.other.execute('job-cancel', { id: jobs[0].id });
  const record = () => expect.unreachable();
  // Where QEMU pushes, the job that reads the view fails with it, or is the one that was cancelled.
  await expect(readAll(session, true).then(() => session.finish(record))).rejects.toMatchObject({
    code: expect.stringMatching(fetch === 'push' ? 'ERR_(VIEW_LOST|PUSH_FAILED)' : 'ERR_VIEW_LOST'),
  });
  await session.fail();
  live.proxy.reset();
  expect(await live.leftovers()).toEqual(live.bitmapsOf(restored.generation));
}

test.each(fetchModes())(
  'no cut by %s is torn when a writer goes over two disks all the time',
  async (how) => {
    await setUp(2, how);
    const [a, b] = live.guests;
    let isWriting = true;
    let count = 0;
    const writing = (async () => {
      const number = Buffer.alloc(512);
      while (isWriting) {
        number.writeUInt32LE(++count);
        await a.write(0, number);
        await b.write(0, number);
      }
    })();
    for (let round = 0; round < runsOr(10); round++) {
      const before = count;
      const session = await machine.backup({
        ...{ disks: live.choices, base: restored.generation, fetch },
      });
      const images = await readAll(session, false);
      const { point } = await session.finish(() => {});
      restored.generation = point.generation;
      const numbers = live.names.map((name) => images.get(name)!.readUInt32LE(0));
      for (const name of live.names) restored.disks.set(name, images.get(name)!);
      // What is on the second disk was on the first one before.
      expect([numbers[1], numbers[1] + 1]).toContain(numbers[0]);
      expect(numbers[0]).toBeGreaterThanOrEqual(before);
    }
    isWriting = false;
    await writing;
    await tearDown();
  },
);
