import { QmpCommandError, type QmpErrorClass } from '../../qmp/index.js';

/** What a client is told. */
export function refusal(
  message: string,
  errorClass: QmpErrorClass = 'GenericError',
): QmpCommandError {
  return new QmpCommandError(errorClass, message);
}

/** A letter, then letters, digits, and a few marks, as in QEMU. */
export function isId(name: string): boolean {
  return /^[A-Za-z][A-Za-z0-9._-]*$/.test(name);
}
