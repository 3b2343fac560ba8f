/** What a client asks for. The words of the refusals are QEMU's, which people search for. */
import type { JsonObject } from '../wire/index.js';
import { QmpCommandError } from './command-error.js';

export interface QmpRequest {
  readonly command: string;
  readonly args: JsonObject;
}

/** @throws QmpCommandError for an object that is no command. */
export function requestOf(object: JsonObject): QmpRequest {
  for (const [name, value] of Object.entries(object)) checkMember(name, value);
  const { execute, arguments: args } = object as { execute?: string; arguments?: JsonObject };
  if (!Object.hasOwn(object, 'execute') || execute === undefined) {
    throw generic("QMP input lacks member 'execute'");
  }
  return { command: execute, args: Object.hasOwn(object, 'arguments') && args ? args : {} };
}

function checkMember(name: string, value: unknown): void {
  if (name === 'id') return;
  if (name === 'execute') {
    if (typeof value !== 'string') throw generic("QMP input member 'execute' must be a string");
  } else if (name === 'arguments') {
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
    if (!isObject) throw generic("QMP input member 'arguments' must be an object");
  } else throw generic(`QMP input member '${name}' is unexpected`);
}

/**
 * Agrees on capabilities: there are none to be enabled.
 *
 * @throws QmpCommandError
 */
export function negotiate({ command, args }: QmpRequest): void {
  if (command !== 'qmp_capabilities') {
    throw new QmpCommandError(
      'CommandNotFound',
      "Expecting capabilities negotiation with 'qmp_capabilities'",
    );
  }
  const { enable = [], ...others } = args;
  for (const name of Object.keys(others)) throw generic(`Parameter '${name}' is unexpected`);
  if (!Array.isArray(enable)) {
    throw generic("Invalid parameter type for 'enable', expected: array");
  }
  for (const name of enable) {
    throw generic(
      name === 'oob'
        ? 'Capability oob not available'
        : `Parameter 'enable' does not accept value '${name}'`,
    );
  }
}

function generic(message: string): QmpCommandError {
  return new QmpCommandError('GenericError', message);
}
