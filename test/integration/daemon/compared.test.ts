/** The same sessions on qemu-storage-daemon and on ours, started by the same arguments. */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createQcow2, createRawFile } from 'lacuna';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { COMMANDS } from '#dist/daemon/commands/index.js';
import type { Shape } from '#dist/daemon/schema/index.js';
import { temporaryFolder } from '../../support/temporary-folder.js';
import { type Answer, AskedDaemon, type Event } from '../../support/two-daemons.js';
import { SESSIONS, type Session } from './sessions.js';

const FOLDER = temporaryFolder();
const MIB = 1 << 20;
const IMAGES = ['disk.qcow2', 'base.qcow2', 'top.qcow2', 'disk.raw', 'b.raw'];
const ARGUMENTS = [
  '--blockdev',
  'driver=file,node-name=start,filename=FOLDER/../images/disk.raw,read-only=on',
  '--chardev',
  'socket,id=q,path=FOLDER/qmp,server=on,wait=off',
  '--monitor',
  'chardev=q',
];

let theirs: AskedDaemon;
let ours: AskedDaemon;

beforeAll(async () => {
  const images = join(FOLDER, 'images');
  mkdirSync(images);
  for (const name of IMAGES) {
    const path = join(images, name);
    if (name.endsWith('.raw')) await createRawFile(path, MIB);
    else if (name === 'top.qcow2') {
      await createQcow2(path, { size: MIB, backing: { filename: 'base.qcow2', format: 'qcow2' } });
    } else await createQcow2(path, { size: MIB });
  }
  [theirs, ours] = await Promise.all([
    AskedDaemon.start('qemu-storage-daemon', join(FOLDER, 'theirs'), ARGUMENTS),
    AskedDaemon.start('lacuna', join(FOLDER, 'ours'), ARGUMENTS),
  ]);
});

afterAll(async () => {
  await theirs?.stop();
  expect(await ours?.stop()).toBe(0);
});

/** What both start with in each session. */
async function fresh(): Promise<void> {
  for (const daemon of [theirs, ours]) {
    await daemon.clear();
    for (const name of IMAGES) {
      copyFileSync(join(FOLDER, 'images', name), join(daemon.folder, name));
    }
    writeFileSync(join(daemon.folder, 'keys.psk'), `u:${'0f'.repeat(32)}\n`, { mode: 0o600 });
  }
}

/** Without what is each one's own: the nodes of files, the space on disk, and how they are found. */
function comparable({ return: value, error }: Answer): unknown {
  if (error !== undefined) return { error };
  return {
    return: Array.isArray(value) ? value.map(plain).filter((one) => one !== undefined) : value,
  };
}

function plain(one: unknown): unknown {
  const { image, file, 'node-name': name, ...node } = Object(one) as Record<string, unknown>;
  if (image === undefined) return one;
  // Their files are nodes of their own too, under names that nobody has given.
  if (String(name).startsWith('#') || String(name).includes('.')) return undefined;
  const { 'actual-size': _, filename: __, ...rest } = image as Record<string, unknown>;
  return { ...node, name, image: rest };
}

function eventsOf(all: readonly Event[], isAsWritten: boolean): unknown[] {
  const events = all.filter((_, i) => !isMomentary(all, i) && !isMomentary(all, i - 1));
  // How far a job was when it told is a matter of the moment.
  return events.map(({ event, data }) => {
    const { len: _, offset: __, ...rest } = data ?? {};
    return isAsWritten ? { event, data: rest } : { event, data };
  });
}

/** QEMU lets jobs pause for a moment where the graph changes, and tells of it; ours do not pause for that. */
function isMomentary(events: readonly Event[], at: number): boolean {
  const [status, next] = [events[at], events[at + 1]].map((one) => one?.data?.status);
  return status === 'paused' && next === 'running';
}

async function play({ steps, events }: Session): Promise<void> {
  await fresh();
  for (const step of steps) {
    if ('job' in step) {
      await Promise.all([theirs, ours].map((one) => one.state(step.job, step.becomes)));
      continue;
    }
    const [command, args = {}, differs] = step;
    const [wanted, found] = await Promise.all([theirs, ours].map((one) => one.ask(command, args)));
    const where = `${command} ${JSON.stringify(args)}`;
    if (differs === undefined) expect(comparable(found), where).toEqual(comparable(wanted));
    else
      expect(comparable(found), `${where}: no longer ${differs}`).not.toEqual(comparable(wanted));
  }
  if (events !== undefined && events !== 'as written') return;
  expect(eventsOf(ours.events, events === 'as written')).toEqual(
    eventsOf(theirs.events, events === 'as written'),
  );
}

describe('qemu-storage-daemon and ours answer the same', () => {
  test.each(SESSIONS.map((session) => [session.name, session] as const))(
    'when %s',
    async (_name, session) => play(session),
  );
});

/** A value of a type, and values of other types. */
function valuesOf(shape: Shape): { good: unknown; wrong: unknown[] } {
  switch (shape.kind) {
    case 'text':
      return { good: 'zz', wrong: [5, null, ['a']] };
    case 'flag':
      return { good: false, wrong: ['on', 1, null] };
    case 'integer':
      return { good: 0, wrong: ['1', 1.5, true, null] };
    case 'word':
      return { good: shape.words[0], wrong: ['nope', 5] };
    case 'list':
      return { good: [], wrong: ['a', 5, {}] };
    case 'struct':
      return { good: {}, wrong: ['a', 5, []] };
    default:
      return { good: {}, wrong: [5] };
  }
}

describe('qemu-storage-daemon and ours refuse the same arguments', () => {
  const shared = COMMANDS.filter(({ isOfQemu, args }) => isOfQemu && args.kind === 'struct');
  test.each(shared.map(({ name, args }) => [name, args] as const))('of %s', async (name, args) => {
    if (args.kind !== 'struct') return;
    const members = Object.entries(args.members);
    const needed = members.filter(([, { isOptional }]) => !isOptional);
    const good = Object.fromEntries(needed.map(([key, { shape }]) => [key, valuesOf(shape).good]));
    const tries: object[] = [
      { ...good, nope: 1 },
      ...needed.map(([key]) =>
        Object.fromEntries(Object.entries(good).filter(([one]) => one !== key)),
      ),
      ...members.flatMap(([key, { shape }]) =>
        valuesOf(shape).wrong.map((wrong) => ({ ...good, [key]: wrong })),
      ),
    ];
    for (const one of tries) {
      const wanted = await theirs.ask(name, one);
      // A later QEMU has the argument.
      if (/is unexpected/.test(wanted.error?.desc ?? '') && !('nope' in one)) continue;
      if (wanted.error === undefined || wanted.error.class === 'CommandNotFound') continue;
      expect(await ours.ask(name, one), `${name} ${JSON.stringify(one)}`).toEqual(wanted);
    }
  });
});
