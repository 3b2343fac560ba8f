/** What somebody else changes between two mirrors must never make a replica pass for equal that is not, nor keep one from its end. */
import { execFileSync } from 'node:child_process';
import { getEventListeners } from 'node:events';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { createRawFile } from 'lacuna';
import type { MirrorOptions, MirrorReport } from 'lacuna/qemu';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { fileOperations } from '#dist/files/index.js';
import { madePath } from '#dist/files/made-name.js';
import { DISK_BYTES, type LiveOptions } from '../../support/live-machine.js';
import { MirroredMachine } from '../../support/mirrored-machine.js';
import { usePeers } from '../../support/peers.js';

const peers = usePeers('suite');

const LONG = { timeout: 60_000 };

let machine: MirroredMachine;

async function start(options: LiveOptions = {}): Promise<void> {
  machine = await MirroredMachine.start(peers, 'raw', options);
}

afterEach(async () => {
  await machine.live.stop();
});

async function mirrorOnce(options: Partial<MirrorOptions> = {}): Promise<MirrorReport> {
  await using connected = await machine.live.connect();
  return await connected.mirror({ ...machine.options, once: true, ...options });
}

/** One mirror that fails in the middle. */
async function failingMirror(options: Partial<MirrorOptions>): Promise<void> {
  machine.live.proxy.reset({
    before: async ({ name }) => {
      if (name === 'block-export-add') throw new Error('it is to fail');
    },
  });
  await expect(mirrorOnce(options)).rejects.toThrow();
  machine.live.proxy.reset();
}

describe('after a mirror that failed', () => {
  test('a replica that was exchanged is refused', async () => {
    await start();
    await machine.guest.write(0, Buffer.alloc(65536, 7));
    await mirrorOnce({ bitmap: 'b0' });
    await failingMirror({});
    rmSync(machine.replica);
    await createRawFile(machine.replica, DISK_BYTES);
    await expect(mirrorOnce()).rejects.toMatchObject({ code: 'ERR_REPLICA_MISMATCH' });
    await mirrorOnce({ full: true });
    await machine.expectReplica(machine.guest.content, 'after the full copy');
  });

  test('a bitmap of the same name of another disk is refused', async () => {
    await start({ disks: 2 });
    await machine.live.other.execute('block-dirty-bitmap-add', { node: 'vdb', name: 'b0' });
    await failingMirror({ bitmap: 'b0' });
    await expect(mirrorOnce({ disk: { node: 'vdb' } })).rejects.toMatchObject({
      code: 'ERR_REPLICA_MISMATCH',
      message: expect.stringContaining('vda'),
    });
    await mirrorOnce();
    await machine.expectReplica(machine.guest.content, 'of the disk that it is of');
  });

  test('a bitmap that somebody has cleared since is refused', async () => {
    await start();
    await machine.guest.write(0, Buffer.alloc(65536, 7));
    await failingMirror({ bitmap: 'b0' });
    await machine.live.other.execute('block-dirty-bitmap-clear', { node: 'vda', name: 'b0' });
    await expect(mirrorOnce()).rejects.toMatchObject({ code: 'ERR_BITMAP_INCONSISTENT' });
  });
});

test('a mirror keeps a second one of its disk away, and is given up by its signal while somebody else has paused its job', async () => {
  await start();
  const { live } = machine;
  const giving = new AbortController();
  const { signal } = giving;
  await using connected = await live.connect();
  const job = connected.mirror({ ...machine.options, bitmap: 'b0', signal }).register();
  await expect.poll(() => job.progress().phase, LONG).toBe('in step');
  await expect(connected.mirror({ ...machine.options, full: true })).rejects.toMatchObject({
    code: 'ERR_MACHINE_BUSY',
    message: expect.stringContaining('mirror of vda is running'),
  });
  const passed: string[] = [];
  live.proxy.reset({ after: ({ name }) => void passed.push(name) });
  const [{ id }] = await live.other.execute('query-jobs');
  await live.other.execute('job-pause', { id });
  // The mirror has learned that its job is paused.
  await expect.poll(() => passed, LONG).toContain('query-jobs');
  job.stop();
  await expect.poll(() => passed, LONG).toContain('block-dirty-bitmap-add');
  giving.abort();
  await expect(job).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  expect(passed).not.toContain('block-job-cancel');
  expect(machine.state).toMatchObject({ phase: 'changing', bitmap: 'b0' });
  await connected.mirror({ ...machine.options, once: true });
  await machine.expectReplica(machine.guest.content, 'after the next mirror');
});

describe('the file of the state', () => {
  const refused = {
    code: 'ERR_REPLICA_MISMATCH',
    message: expect.stringContaining('name one of its own'),
  };

  test('is left as it is where it is something else: a text, the replica itself, or a pipe', async () => {
    await start();
    const text = machine.live.file('notes');
    writeFileSync(text, '{ "format": "lacuna replica, or nearly" }');
    const pipe = machine.live.file('pipe');
    execFileSync('mkfifo', [pipe]);
    const before = [readFileSync(text), readFileSync(machine.replica)];
    for (const state of [text, machine.replica, pipe]) {
      await expect(mirrorOnce({ full: true, state }), state).rejects.toMatchObject(refused);
    }
    expect([readFileSync(text), readFileSync(machine.replica)]).toEqual(before);
  });

  test('decides anew where another mirror has stored it since it was read', async () => {
    await start();
    await mirrorOnce({ bitmap: 'b0' });
    const file = `${machine.replica}.replica`;
    const { state } = machine;
    const stored: string[] = [];
    machine.live.proxy.reset({
      before: async ({ name, index }) => {
        if (name !== 'query-named-block-nodes') return;
        stored.push(JSON.stringify({ ...state, made: [`of ${index}`] }));
        writeFileSync(file, stored.at(-1)!);
      },
    });
    await expect(mirrorOnce()).rejects.toMatchObject({
      code: 'ERR_MACHINE_BUSY',
      message: expect.stringContaining('begin again'),
    });
    machine.live.proxy.reset();
    expect(readFileSync(file, 'utf8')).toBe(stored.at(-1));
  });

  test('has nothing beside it that a killed mirror was writing', async () => {
    await start();
    const state = `${machine.replica}.replica`;
    writeFileSync(madePath(state, 'side'), 'half a state');
    await mirrorOnce({ bitmap: 'b0' });
    const there = readdirSync(dirname(state));
    expect(there.filter((name) => name.startsWith(basename(state)))).toEqual([basename(state)]);
  });
});

test('a mirror that cannot write its journal leaves no folder', async () => {
  await start();
  const { write } = fileOperations;
  const spy = vi.spyOn(fileOperations, 'write').mockImplementation((fd, bytes, at) => {
    if (String(bytes).includes('"prefix"')) throw Object.assign(new Error(), { code: 'ENOSPC' });
    write(fd, bytes, at);
  });
  try {
    await expect(mirrorOnce({ bitmap: 'b0' })).rejects.toThrow('write the journal');
  } finally {
    spy.mockRestore();
  }
  expect(readdirSync(machine.live.folder)).toEqual([]);
});

test('a mirror that is over listens no more to the signal that it was begun with', async () => {
  await start();
  const { signal } = new AbortController();
  await mirrorOnce({ bitmap: 'b0', signal });
  expect(getEventListeners(signal, 'abort')).toEqual([]);
});

test('a mirror that is paused before QEMU has its job is paused all the same', async () => {
  await start();
  const { live, guest } = machine;
  await guest.write(0, Buffer.alloc(65536, 7));
  await using connected = await live.connect();
  const job = connected.mirror({ ...machine.options, bitmap: 'b0', once: true });
  live.proxy.reset({
    before: async ({ name }) => {
      // QEMU hears of the pause before it is told to mirror.
      if (name === 'blockdev-add') job.pause();
    },
  });
  const state = async () => (await live.other.execute('query-jobs'))[0]?.status ?? '';
  await expect.poll(state, LONG).toMatch(/^(paused|standby)$/);
  job.resume();
  await job;
  await machine.expectReplica(guest.content, 'at the end');
});

test('a mirror keeps to a rate that it is given before it copies anything', async () => {
  await start();
  const { guest } = machine;
  for (const granule of [0, 4, 8]) await guest.write(granule * 65536, Buffer.alloc(65536, 7));
  await using connected = await machine.live.connect();
  // At this rate it would take more than a day.
  const job = connected.mirror({ ...machine.options, bitmap: 'b0', once: true, rate: 1 });
  job.setRate(undefined);
  await job;
  await machine.expectReplica(guest.content, 'at the end');
});
