/** Reads the argument of a command line: JSON, or QEMU's dotted keys. */
import { QmpCommandError } from '../../qmp/index.js';
import { parseJson } from '../../qmp/wire/index.js';
import { check, checkTexts } from './check.js';
import type { Type } from './types.js';

type Nested = { [key: string]: string | Nested };

/**
 * Reads what an option says, with the type that it has: `{"driver":"file"}`, or `driver=file,filename=a,,b`, where two commas are one of
 * a value. The type of each value comes from the schema, not from how it looks.
 *
 * @param implied the key of a first part without one: `nbd,id=a` means `type=nbd,id=a`.
 * @throws QmpCommandError for what is unknown, missing, of the wrong type, or said twice.
 */
export function parseArgument<T>(type: Type<T>, argument: string, implied?: string): T {
  if (/^\s*\{/.test(argument)) return check(type, jsonOf(argument));
  return checkTexts(type, parseKeys(argument, implied));
}

function jsonOf(argument: string): unknown {
  try {
    return parseJson(argument);
  } catch (error) {
    throw refusal(`JSON parse error, ${(error as Error).message}`);
  }
}

/** @throws QmpCommandError */
function parseKeys(argument: string, implied?: string): Nested {
  const result: Nested = Object.create(null);
  const fields = argument.match(/(?:[^,]|,,)+/g) ?? [];
  for (const [i, field] of fields.entries()) {
    const isImplied = i === 0 && implied !== undefined && !/^[^,]*=/.test(field);
    const pair = isImplied ? `${implied}=${field}` : field;
    const [, path, value] = /^([^=]+)=(.*)$/s.exec(pair) ?? [];
    if (path === undefined || value === undefined) {
      throw refusal(`Expected '=' after parameter '${field}'`);
    }
    assign(result, path, value.replaceAll(',,', ','));
  }
  return result;
}

function assign(target: Nested, path: string, value: string): void {
  const keys = path.split('.');
  if (keys.includes('')) throw refusal(`Invalid parameter '${path}'`);
  const last = keys.pop() as string;
  let place = target;
  for (const key of keys) {
    place[key] ??= Object.create(null) as Nested;
    const next = place[key];
    if (typeof next === 'string') {
      throw refusal(`Parameters '${key}.*' used inconsistently: '${key}' has a value already`);
    }
    place = next;
  }
  if (place[last] !== undefined) throw refusal(`Parameter '${path}' is said twice`);
  place[last] = value;
}

function refusal(message: string): QmpCommandError {
  return new QmpCommandError('GenericError', message);
}
