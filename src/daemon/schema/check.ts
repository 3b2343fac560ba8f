/** Checks values against their types. The words of the refusals are QEMU's, which tools and people look for. */
import { QmpCommandError } from '../../qmp/index.js';
import { parseSize } from '../../util/index.js';
import type { Members, Shape, Type, Union } from './types.js';

/** How values are read. */
interface Reading {
  /** Numbers and flags are texts, and lists have numbered members, as dotted keys have them. */
  readonly isFromText: boolean;
}

/** Reads a value of JSON. @throws QmpCommandError */
export function check<T>({ shape }: Type<T>, value: unknown): T {
  return read(shape, value, '', { isFromText: false }) as T;
}

/** Reads a value that is a member of something else, whose name messages say. @throws QmpCommandError */
export function checkMember<T>({ shape }: Type<T>, value: unknown, name: string): T {
  return read(shape, value, name, { isFromText: false }) as T;
}

/** Reads what dotted keys have said: all values are texts. @throws QmpCommandError */
export function checkTexts<T>({ shape }: Type<T>, value: unknown): T {
  return read(shape, value, '', { isFromText: true }) as T;
}

function read(shape: Shape, value: unknown, path: string, how: Reading): unknown {
  switch (shape.kind) {
    case 'anything':
      return value;
    case 'nothing':
      if (value === null) return null;
      throw wrongType(path, 'null');
    case 'text':
      if (typeof value === 'string') return value;
      throw wrongType(path, 'string');
    case 'number':
      if (typeof value === 'number') return value;
      throw wrongType(path, 'number');
    case 'flag':
      return readFlag(value, path, how);
    case 'integer':
      return readInteger(shape, value, path, how);
    case 'word':
      if (typeof value !== 'string') throw wrongType(path, 'string');
      if (shape.words.includes(value)) return value;
      throw refusal(`Parameter '${lastOf(path)}' does not accept value '${value}'`);
    case 'list':
      return readList(shape.item, value, path, how);
    case 'struct': {
      const given = objectOf(value, path);
      const result = readMembers(shape.members, given, path, how);
      refuseOthers(given, [shape.members], path);
      return result;
    }
    case 'union':
      return readUnion(shape, value, path, how);
    case 'alternate': {
      const choice = shape.choices().find((one) => isOfKind(one, value, how));
      if (choice !== undefined) return read(choice, value, path, how);
      throw wrongType(path, shape.name);
    }
  }
}

function readMembers(
  members: Members,
  given: Record<string, unknown>,
  path: string,
  how: Reading,
): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  for (const [name, { shape, isOptional }] of Object.entries(members)) {
    const place = join(path, name);
    if (Object.hasOwn(given, name)) result[name] = read(shape, given[name], place, how);
    else if (!isOptional) throw refusal(`Parameter '${place}' is missing`);
  }
  return result;
}

function readUnion({ base, tag, branches }: Union, value: unknown, path: string, how: Reading) {
  const given = objectOf(value, path);
  const common = readMembers(base, given, path, how);
  const own = branches()[common[tag] as string] ?? {};
  const result = { ...common, ...readMembers(own, given, path, how) };
  refuseOthers(given, [base, own], path);
  return result;
}

function refuseOthers(
  given: Record<string, unknown>,
  known: readonly Members[],
  path: string,
): void {
  const other = Object.keys(given).find((name) => known.every((one) => !Object.hasOwn(one, name)));
  if (other !== undefined) throw refusal(`Parameter '${join(path, other)}' is unexpected`);
}

function objectOf(value: unknown, path: string): Record<string, unknown> {
  const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
  if (isObject) return value as Record<string, unknown>;
  throw wrongType(path, 'object');
}

function readList(item: Shape, value: unknown, path: string, how: Reading): unknown[] {
  const items = how.isFromText ? numbered(value, path) : value;
  if (!Array.isArray(items)) throw wrongType(path, 'array');
  return items.map((one, i) => read(item, one, `${path}[${i}]`, how));
}

/** Dotted keys number the items of a list: `bitmaps.0=a,bitmaps.1=b`. */
function numbered(value: unknown, path: string): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  const names = Object.keys(value);
  return names.map((_, i) => {
    if (Object.hasOwn(value, String(i))) return (value as Record<string, unknown>)[i];
    throw refusal(`Parameter '${path}.${i}' is missing`);
  });
}

function readFlag(value: unknown, path: string, { isFromText }: Reading): boolean {
  if (!isFromText) {
    if (typeof value === 'boolean') return value;
    throw wrongType(path, 'boolean');
  }
  if (['on', 'yes', 'true', 'y'].includes(value as string)) return true;
  if (['off', 'no', 'false', 'n'].includes(value as string)) return false;
  throw refusal(`Parameter '${path}' expects 'on' or 'off'`);
}

function readInteger(
  { isSize, isUnsigned }: Extract<Shape, { kind: 'integer' }>,
  value: unknown,
  path: string,
  { isFromText }: Reading,
): number {
  const number = isFromText && typeof value === 'string' ? numberOf(value, isSize) : value;
  if (typeof number !== 'number' || !Number.isInteger(number)) {
    if (!isFromText && isUnsigned) throw refusal(`Parameter '${path}' expects uint64`);
    if (!isFromText) throw wrongType(path, 'integer');
    throw refusal(
      `Parameter '${path}' expects ${isSize ? 'a size, a whole number of bytes or one with a unit such as 64K' : 'a whole number'}`,
    );
  }
  if (!Number.isSafeInteger(number)) {
    throw refusal(`Parameter '${path}' expects a whole number below 2^53`);
  }
  // The arithmetic of QEMU takes a negative number for one of 64 bits, which no disk is as large as.
  if (number >= 0 || !(isSize || isUnsigned)) return number;
  throw refusal(`Parameter '${path}' expects a whole number of 0 or more`);
}

function numberOf(value: string, isSize: boolean): number | undefined {
  if (isSize) return sizeOf(value);
  return /^[+-]?\d+$/.test(value) ? Number(value) : undefined;
}

function sizeOf(value: string): number | undefined {
  try {
    return parseSize(value);
  } catch {
    return undefined;
  }
}

/** Whether JSON tells that a value is meant as this type. */
function isOfKind(shape: Shape, value: unknown, { isFromText }: Reading): boolean {
  switch (shape.kind) {
    case 'text':
    case 'word':
      return typeof value === 'string';
    case 'nothing':
      return value === null;
    case 'flag':
      return typeof value === 'boolean' && !isFromText;
    case 'integer':
    case 'number':
      return typeof value === 'number';
    case 'list':
      return Array.isArray(value);
    case 'struct':
    case 'union':
      return typeof value === 'object' && value !== null && !Array.isArray(value);
    default:
      return true;
  }
}

function wrongType(path: string, wanted: string): QmpCommandError {
  return refusal(`Invalid parameter type for '${path}', expected: ${wanted}`);
}

function refusal(message: string): QmpCommandError {
  return new QmpCommandError('GenericError', message);
}

function join(path: string, name: string): string {
  return path === '' ? name : `${path}.${name}`;
}

function lastOf(path: string): string {
  return path.slice(path.lastIndexOf('.') + 1);
}
