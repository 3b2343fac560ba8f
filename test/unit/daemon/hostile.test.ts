/** Clients that send anything, many at once, and some that never read: each is answered, and the daemon lives. */
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { createQcow2 } from 'lacuna';
import { Daemon } from 'lacuna/daemon';
import { Random } from 'lacuna/testing';
import { expect, onTestFinished, test } from 'vitest';
import { COMMANDS } from '#dist/daemon/commands/index.js';
import type { Members, Shape } from '#dist/daemon/schema/index.js';
import { firstSeed, runsOr } from '../../support/long-run.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

const SIZE = 1 << 20;
const MIB = 1 << 20;
const STEPS = 12;

const ANYTHING = ['disk', 'raw', 'n', 'm', 'b', 'j', 'g', '/objects/g', 'limits', 'e', '#x', ''];
/** What is mostly said for some keys, so that many commands come far. */
const KNOWN: readonly (readonly [keys: readonly string[], names: readonly string[]])[] = [
  [
    ['node', 'device', 'node-name', 'base-node', 'top-node', 'image-node-name'],
    ['disk', 'raw', 'n'],
  ],
  [
    ['target', 'overlay', 'replacement', 'file', 'nodes'],
    ['raw', 'm', 'b'],
  ],
  [
    ['name', 'bitmap', 'bitmaps'],
    ['b', 'c'],
  ],
  [['job-id'], ['j', 'k']],
  [['throttle-group'], ['g']],
  [['path'], ['/objects/g']],
  [['property'], ['limits']],
];

let folder: string;
workInNewFolders((entered) => {
  folder = entered;
});

/** What is waited for so long would hold up the client that asks for it. */
function isTime(key: string): boolean {
  return /timeout|delay/.test(key);
}

/** Makes commands that may be right, and those that are not. */
class Attacker {
  readonly #random: Random;

  constructor(seed: number) {
    this.#random = new Random(seed);
  }

  pick<T>(list: readonly T[]): T {
    return this.#random.pick(list);
  }

  #isSo(share: number): boolean {
    return this.#random.below(1000) < share * 1000;
  }

  /** A line, and whether it is an object whose answer has its id. */
  line(id: number): { readonly bytes: Buffer; readonly isAnswered: boolean } {
    if (this.#isSo(0.1)) return { bytes: Buffer.from(`${this.#garbage()}\n`), isAnswered: false };
    const { name, args } = this.pick(COMMANDS.filter(({ name: each }) => each !== 'quit'));
    const wanted = { execute: name, arguments: this.#value(args, 'arguments', 0), id };
    const spoiled = this.#isSo(0.4) ? this.#spoiled(wanted) : wanted;
    return { bytes: Buffer.from(`${JSON.stringify({ ...spoiled, id })}\n`), isAnswered: true };
  }

  #garbage(): string {
    return this.pick([
      '{"execute": "query-jobs"]',
      '}}}]]]',
      '{"execute": }',
      '[1, 2, 3]',
      '"text"',
      '{"a": "\\ud800"}',
      '{"execute": "query-jobs", "execute": 1}',
      '\u0000\u0001\u0002',
      `${'['.repeat(2000)}`,
      'null true 1e999',
    ]);
  }

  /** With a value at any place exchanged, left out, or one more added. */
  #spoiled(wanted: object): object {
    const copy = JSON.parse(JSON.stringify(wanted)) as Record<string, unknown>;
    const places: [Record<string, unknown>, string][] = [];
    const walk = (node: unknown) => {
      if (typeof node !== 'object' || node === null) return;
      for (const key of Object.keys(node)) {
        places.push([node as Record<string, unknown>, key]);
        walk((node as Record<string, unknown>)[key]);
      }
    };
    walk(copy);
    const [at, key] = this.pick(places);
    if (this.#isSo(0.2)) delete at[key];
    else if (this.#isSo(0.12)) at[this.pick(['nope', '', '__proto__', 'x'.repeat(5000)])] = 1;
    else at[key] = this.#hostile(key);
    return copy;
  }

  #hostile(key: string): unknown {
    // Nobody is asked what a name stands for.
    if (key === 'host' || isTime(key)) return 'x';
    return this.pick<unknown>([
      ...[null, true, '', ' ', 0, -1, 1.5, 2 ** 53, -(2 ** 53), 1e300, [], {}, [[[]]]],
      ...['a\u0000b', '../../x', '\ud800', 'x'.repeat(70_000), '9', '__proto__', 'constructor'],
      ...[{ 'node-name': 'disk' }, { driver: 'raw', file: 'disk' }, ['disk', 'disk']],
    ]);
  }

  #value(shape: Shape, key: string, depth: number): unknown {
    switch (shape.kind) {
      case 'text':
        return this.#text(key);
      case 'flag':
        return this.#isSo(0.5);
      case 'integer':
        return isTime(key) ? 0 : this.pick([0, 1, 512, 4096, 65_536, SIZE, 2 * SIZE]);
      case 'number':
        return this.#random.below(100) / 7;
      case 'word':
        return this.pick(shape.words);
      case 'list':
        return Array.from({ length: this.#random.below(3) }, () =>
          this.#value(shape.item, key, depth + 1),
        );
      case 'struct':
        return this.#members(shape.members, depth);
      case 'union': {
        const base = this.#members(shape.base, depth) as Record<string, unknown>;
        const own = shape.branches()[base[shape.tag] as string] ?? {};
        return { ...base, ...(this.#members(own, depth) as object) };
      }
      case 'alternate':
        return depth > 3 ? 'disk' : this.#value(this.pick(shape.choices()), key, depth + 1);
      case 'nothing':
        return null;
      case 'anything':
        return this.#hostile(key);
    }
  }

  #members(members: Members, depth: number): object {
    return Object.fromEntries(
      Object.entries(members)
        .filter(([, { isOptional }]) => !isOptional || (this.#isSo(0.3) && depth < 4))
        .map(([key, { shape }]) => [key, this.#value(shape, key, depth + 1)]),
    );
  }

  #text(key: string): string {
    if (key === 'host') return '127.0.0.1';
    if (key === 'port') return this.pick(['0', '1', '99999', 'x']);
    if (['filename', 'dir'].includes(key) || (key === 'path' && this.#isSo(0.5))) {
      return join(folder, this.pick(['disk.qcow2', 'new', 'nbd', 'raw', 'in/x']));
    }
    const known = KNOWN.find(([keys]) => keys.includes(key))?.[1] ?? ANYTHING;
    return this.#isSo(0.8) ? this.pick(known) : this.pick(ANYTHING);
  }
}

/** Values of a type that have all there is, one for each form that it may have. */
function wholes(shape: Shape, key: string, depth = 0): unknown[] {
  switch (shape.kind) {
    case 'text':
      return [wholeText(key)];
    case 'flag':
      return [false];
    case 'integer':
    case 'number':
      return [isTime(key) ? 0 : SIZE];
    case 'word':
      return [shape.words[0]];
    case 'list':
      return wholes(shape.item, key, depth + 1).map((one) => [one]);
    case 'struct':
      return zipped(shape.members, depth);
    case 'union':
      return Object.entries(shape.branches()).flatMap(([tag, own]) =>
        zipped({ ...shape.base, ...own }, depth).map((one) => ({ ...one, [shape.tag]: tag })),
      );
    case 'alternate':
      return depth > 1
        ? ['raw']
        : shape.choices().flatMap((choice) => wholes(choice, key, depth + 1));
    case 'nothing':
      return [null];
    case 'anything':
      return [{}];
  }
}

function wholeText(key: string): string {
  if (key === 'host') return '127.0.0.1';
  if (key === 'port') return '1';
  if (['filename', 'path', 'dir'].includes(key)) return join(folder, 'raw');
  return KNOWN.find(([keys]) => keys.includes(key))?.[1][0] ?? 'zz';
}

function zipped(members: Members, depth: number): object[] {
  const columns = Object.entries(members).map(
    ([key, { shape }]) => [key, wholes(shape, key, depth + 1)] as const,
  );
  const rows = Math.max(1, ...columns.map(([, values]) => values.length));
  return Array.from({ length: rows }, (_, row) =>
    Object.fromEntries(columns.map(([key, values]) => [key, values[row % values.length]])),
  );
}

function renamed(whole: object, name: string): object {
  let count = 0;
  const rename = (key: string, value: unknown) =>
    key === 'node-name' ? `${name}${count++}` : value;
  return JSON.parse(JSON.stringify(whole, rename));
}

const WRONG: readonly unknown[] = [
  ...[null, true, '', 0, -1, 1.5, 2 ** 53, 1e300, [], {}, [[[]]], 'a\u0000b', '\ud800'],
  ...['x'.repeat(5000), '__proto__', { 'node-name': 'disk' }, ['disk', 'disk'], undefined],
];

/** A value with each place of it exchanged, one after the other; undefined leaves it out. */
function* spoiledAtEach(value: object, next: () => unknown): Generator<object> {
  for (const [key, own] of Object.entries(value)) {
    // Nobody is asked what a name stands for.
    if (key !== 'host' && !isTime(key)) yield replaced(value, key, next());
    if (typeof own !== 'object' || own === null) continue;
    for (const one of spoiledAtEach(own, next)) yield replaced(value, key, one);
  }
}

function replaced(value: object, key: string, by: unknown): object {
  if (Array.isArray(value)) return value.map((one, i) => (String(i) === key ? by : one));
  return { ...value, [key]: by };
}

async function started(): Promise<{ daemon: Daemon; path: string }> {
  const daemon = new Daemon({ allow: [folder] });
  onTestFinished(() => daemon.close().catch(() => {}));
  await createQcow2('disk.qcow2', { size: SIZE });
  writeFileSync('raw', Buffer.alloc(SIZE));
  const file = { driver: 'file', filename: join(folder, 'disk.qcow2') };
  await daemon.execute('blockdev-add', { driver: 'qcow2', 'node-name': 'disk', file });
  const raw = { driver: 'file', filename: join(folder, 'raw') };
  await daemon.execute('blockdev-add', { ...raw, 'node-name': 'raw' });
  await daemon.execute('block-dirty-bitmap-add', { node: 'disk', name: 'b', persistent: true });
  await daemon.execute('object-add', { 'qom-type': 'throttle-group', id: 'g' });
  const addr = { type: 'unix', data: { path: join(folder, 'nbd') } };
  await daemon.execute('nbd-server-start', { addr });
  const path = join(folder, 'qmp');
  await daemon.listen({ path });
  return { daemon, path };
}

async function client(path: string): Promise<Socket> {
  const socket = connect({ path });
  await once(socket, 'connect');
  onTestFinished(() => void socket.destroy());
  socket.write('{"execute": "qmp_capabilities"}\n');
  return socket;
}

interface Answered {
  readonly id?: number;
  readonly error?: { readonly class: string; readonly desc: string };
}

/** Sends all, and gives what came until the other side has ended. */
async function talk(path: string, lines: readonly Buffer[]): Promise<Answered[]> {
  const socket = await client(path);
  let text = '';
  socket.setEncoding('utf8').on('data', (piece) => {
    text += piece;
  });
  for (const line of lines) socket.write(line);
  socket.end();
  await once(socket, 'close');
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Answered);
}

/** What only a mistake of this program says. */
const MISTAKE =
  /Cannot read prop|is not a function|is not iterable|of undefined|is not defined|Maximum call stack|Assertion|BigInt/;

test('a client that sends anything is answered each command, and never by a mistake of the daemon', async () => {
  const { daemon, path } = await started();
  const sessions = runsOr(100, 1000);
  for (let run = 0; run < sessions; run++) {
    const seed = firstSeed() + run;
    const attacker = new Attacker(seed);
    const lines = Array.from({ length: STEPS }, (_, id) => attacker.line(id));
    const answers = await talk(
      path,
      lines.map(({ bytes }) => bytes),
    );
    const ids = answers.map(({ id }) => id).filter((id) => id !== undefined);
    const wanted = lines.flatMap(({ isAnswered }, id) => (isAnswered ? [id] : []));
    expect(ids, `seed ${seed}`).toEqual(wanted);
    const mistakes = answers.flatMap(({ id, error }) =>
      MISTAKE.test(error?.desc ?? '') ? [`${lines[id ?? 0].bytes} -> ${error?.desc}`] : [],
    );
    expect(mistakes, `seed ${seed}`).toEqual([]);
  }
  await daemon.execute('query-version');
  await daemon.close();
});

test('a wrong value at any place of any command is answered, and never by a mistake of the daemon', async () => {
  const { daemon, path } = await started();
  let turn = firstSeed();
  const lines: string[] = [];
  for (let round = 0; round < runsOr(1, WRONG.length); round++) {
    turn += 1;
    const next = () => WRONG[turn++ % WRONG.length];
    for (const { name: execute, args } of COMMANDS.filter(({ name }) => name !== 'quit')) {
      for (const whole of wholes(args, 'arguments') as object[]) {
        // What is added has names of its own, or nothing would come further.
        const isAdded = execute.startsWith('blockdev-add') || execute.startsWith('blockdev-create');
        const named = isAdded ? renamed(whole, `n${lines.length}x`) : whole;
        for (const wrong of spoiledAtEach(named, next)) {
          lines.push(JSON.stringify({ execute, arguments: wrong, id: lines.length }));
        }
      }
    }
  }
  const answers = await talk(
    path,
    lines.map((line) => Buffer.from(`${line}\n`)),
  );
  const known = answers.filter(({ id }) => id !== undefined);
  expect(known.map(({ id }) => id)).toEqual(lines.map((_, i) => i));
  const mistakes = known.flatMap(({ id, error }) =>
    MISTAKE.test(error?.desc ?? '') ? [`${lines[id ?? 0]} -> ${error?.desc}`] : [],
  );
  expect(mistakes).toEqual([]);
  await daemon.execute('query-version');
});

test('a hundred clients at once are all answered, beside some that never read', async () => {
  const { daemon, path } = await started();
  const before = process.memoryUsage().rss;
  const schema = Buffer.from('{"execute": "query-qmp-schema"}\n'.repeat(200));
  const silent = await Promise.all(
    Array.from({ length: 20 }, async () => {
      const socket = await client(path);
      socket.pause();
      socket.write(schema);
      return socket;
    }),
  );
  const answers = await Promise.all(
    Array.from({ length: 100 }, (_, i) => {
      const attacker = new Attacker(firstSeed() + i);
      const lines = Array.from({ length: STEPS }, (_each, id) => attacker.line(id));
      const known = lines.filter(({ isAnswered }) => isAnswered).length;
      return talk(
        path,
        lines.map(({ bytes }) => bytes),
      ).then((all) => all.filter(({ id }) => id !== undefined).length - known);
    }),
  );
  expect(answers).toEqual(answers.map(() => 0));
  // 20 clients with 200 answers of 100 KiB each would be 400 MiB.
  expect(process.memoryUsage().rss - before).toBeLessThan(300 * MIB);
  for (const socket of silent) socket.destroy();
  await daemon.execute('query-version');
});
