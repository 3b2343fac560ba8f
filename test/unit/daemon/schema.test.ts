import { describe, expect, test } from 'vitest';
import {
  about,
  alternate,
  check,
  command,
  count,
  event,
  flag,
  integer,
  introspect,
  list,
  nothing,
  optional,
  parseArgument,
  size,
  struct,
  type Type,
  text,
  union,
  word,
} from '#dist/daemon/schema/index.js';

interface Part {
  readonly driver: string;
  readonly file?: Part | string | null;
}

const ref: Type<Part | string | null> = alternate('Ref', () => [part, text, nothing]);
const part: Type<Part> = union('Part', {
  base: { driver: word('Driver', 'file', 'filter'), 'read-only': optional(flag) },
  tag: 'driver',
  branches: () => ({
    file: { filename: text, size: optional(size) },
    filter: { file: ref, names: optional(list(text)), level: optional(integer) },
  }),
});
const all = struct('All', { part, depth: about(optional(count), 'how deep') });

describe('the types of commands', () => {
  test('take what they describe', () => {
    const value = {
      part: { driver: 'filter', file: { driver: 'filter', file: null }, names: ['a'], level: -1 },
      depth: 0,
    };
    expect(check(all, value)).toEqual(value);
  });

  test.each([
    [{}, "Parameter 'part' is missing"],
    [{ part: [] }, "Invalid parameter type for 'part', expected: object"],
    [{ part: {} }, "Parameter 'part.driver' is missing"],
    [{ part: { driver: 1 } }, "Invalid parameter type for 'part.driver', expected: string"],
    [{ part: { driver: 'x' } }, "Parameter 'driver' does not accept value 'x'"],
    [{ part: { driver: 'file' } }, "Parameter 'part.filename' is missing"],
    [{ part: { driver: 'file', filename: 'a', file: 'b' } }, "Parameter 'part.file' is unexpected"],
    [
      { part: { driver: 'file', filename: 'a', 'read-only': 'on' } },
      "Invalid parameter type for 'part.read-only', expected: boolean",
    ],
    [
      { part: { driver: 'file', filename: 'a', size: '1' } },
      "Invalid parameter type for 'part.size', expected: integer",
    ],
    [
      { part: { driver: 'file', filename: 'a', size: 1.5 } },
      "Invalid parameter type for 'part.size', expected: integer",
    ],
    [
      { part: { driver: 'file', filename: 'a', size: 2 ** 60 } },
      "Parameter 'part.size' expects a whole number below 2^53",
    ],
    [
      { part: { driver: 'file', filename: 'a', size: -1 } },
      "Parameter 'part.size' expects a whole number of 0 or more",
    ],
    [
      { part: { driver: 'filter', file: 5 } },
      "Invalid parameter type for 'part.file', expected: Ref",
    ],
    [
      { part: { driver: 'filter', file: { driver: 'filter' } } },
      "Parameter 'part.file.file' is missing",
    ],
    [
      { part: { driver: 'filter', file: null, names: ['a', 1] } },
      "Invalid parameter type for 'part.names[1]', expected: string",
    ],
    [
      { part: { driver: 'filter', file: null, names: { 0: 'a' } } },
      "Invalid parameter type for 'part.names', expected: array",
    ],
    [{ part: { driver: 'filter', file: 'a' }, depth: null }, "Parameter 'depth' expects uint64"],
    [
      JSON.parse('{"part":{"driver":"__proto__"}}'),
      "Parameter 'driver' does not accept value '__proto__'",
    ],
    [
      JSON.parse('{"part":{"driver":"file","filename":"a"},"__proto__":1}'),
      "Parameter '__proto__' is unexpected",
    ],
  ])('refuse %j in the words of QEMU', (value, message) => {
    expect(() => check(all, value)).toThrow(message);
  });
});

describe('an argument of a command line', () => {
  test('is JSON or dotted keys, and says the same', () => {
    const wanted = {
      driver: 'filter',
      file: { driver: 'file', filename: 'a,b=c', size: 65536, 'read-only': true },
      names: ['x', '5'],
      level: -3,
    };
    expect(parseArgument(part, JSON.stringify(wanted))).toEqual(wanted);
    const keys =
      'driver=filter,file.driver=file,file.filename=a,,b=c,file.size=64K,file.read-only=on,names.0=x,names.1=5,level=-3';
    expect(parseArgument(part, keys)).toEqual(wanted);
    expect(parseArgument(part, keys.replace('driver=', ''), 'driver')).toEqual(wanted);
  });

  test('has the types of the schema, not those that its values look like', () => {
    const named = parseArgument(part, 'driver=file,filename=on');
    expect(named).toEqual({ driver: 'file', filename: 'on' });
    expect(parseArgument(part, 'driver=filter,file=5')).toEqual({ driver: 'filter', file: '5' });
  });

  test.each([
    ['driver=file,filename=a,filename=b', "Parameter 'filename' is said twice"],
    ['{"driver":"file","filename":"a","filename":"b"}', 'JSON parse error, duplicate key'],
    ['{"driver":', 'JSON parse error, premature EOI'],
    ['driver=file,x', "Expected '=' after parameter 'x'"],
    ['driver=file,filename=a,colour=b', "Parameter 'colour' is unexpected"],
    ['driver=file,filename=a,size=large', "Parameter 'size' expects a size"],
    ['driver=file,filename=a,read-only=maybe', "Parameter 'read-only' expects 'on' or 'off'"],
    ['driver=filter,file=a,level=1.5', "Parameter 'level' expects a whole number"],
    ['driver=filter,file=a,names.1=b', "Parameter 'names.0' is missing"],
    ['driver=filter,file=a,file.driver=file', "Parameters 'file.*' used inconsistently"],
    ['driver=filter,file..driver=file', "Invalid parameter 'file..driver'"],
    ['driver=file', "Parameter 'filename' is missing"],
    ['', "Parameter 'driver' is missing"],
    ['driver=file,filename=a,__proto__.x=1', "Parameter '__proto__' is unexpected"],
  ])('%s is refused', (argument, message) => {
    expect(() => parseArgument(part, argument)).toThrow(message);
  });
});

test('the schema has every name that it refers to, and tells what may be left out', () => {
  const commands = [
    command({
      name: 'do',
      about: '',
      args: { all, list: list(all) },
      returns: part,
      run: () => ({}) as never,
    }),
    command({ name: 'add', about: '', boxed: part, run: () => undefined }),
  ];
  const events = [event('DONE', '', { id: text })];
  const schema = introspect(commands, events);
  const names = schema.map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
  const mentioned = JSON.stringify(schema).matchAll(
    /"(?:arg-type|ret-type|type|element-type)":"([^"]+)"/g,
  );
  for (const [, name] of mentioned) expect(names).toContain(name);
  const entity = (name: unknown) => schema.find((one) => one.name === name)!;
  const doing = entity('do');
  expect(doing['meta-type']).toBe('command');
  const members = entity(doing['arg-type']).members as { name: string; type: string }[];
  const within = entity(members[0].type);
  expect(within.members).toEqual([
    { name: 'part', type: expect.any(String) },
    { name: 'depth', default: null, type: 'int' },
  ]);
  expect(entity(entity('add')['arg-type'])).toMatchObject({ 'meta-type': 'object', tag: 'driver' });
  expect(entity(entity('add')['ret-type'])).toMatchObject({ 'meta-type': 'object', members: [] });
});
