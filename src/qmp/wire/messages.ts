/** What the objects of a QMP connection are. See docs/interop/qmp-spec of QEMU. */
import { protocolError } from './failures.js';
import type { JsonObject } from './json-stream.js';

/** The version of a QEMU, as its greeting says it. */
export interface QmpVersion {
  /** First number. */
  readonly major: number;
  /** Second number. */
  readonly minor: number;
  /** Third number. */
  readonly micro: number;
  /** What the distribution adds; may be empty. */
  readonly package: string;
}

/** Something that happened in the machine. */
export interface QmpEvent {
  /** Its name, such as `JOB_STATUS_CHANGE`. */
  readonly event: string;
  /** What belongs to it. */
  readonly data: JsonObject;
  /** Milliseconds since 1970, by the clock of the machine's host; NaN where that did not say. */
  readonly timeMs: number;
}

export type Message =
  | { readonly type: 'greeting'; readonly version: QmpVersion; readonly capabilities: string[] }
  | { readonly type: 'return'; readonly id: unknown; readonly value: unknown }
  | {
      readonly type: 'error';
      readonly id: unknown;
      readonly errorClass: string;
      readonly description: string;
    }
  | { readonly type: 'event'; readonly event: QmpEvent };

/**
 * Tells what an object is.
 *
 * @throws LacunaError ERR_QMP_PROTOCOL
 */
export function messageOf(object: JsonObject): Message {
  if (Object.hasOwn(object, 'return')) {
    return { type: 'return', id: object.id, value: object.return };
  }
  if (Object.hasOwn(object, 'error')) return errorOf(object);
  if (Object.hasOwn(object, 'event')) return eventOf(object);
  if (Object.hasOwn(object, 'QMP')) return greetingOf(object);
  throw protocolError('it sent an object that is no greeting, answer or event');
}

/** A command as it is sent. A command that goes out of band is not queued behind others. */
export function commandText(
  name: string,
  args: object | undefined,
  id: number | undefined,
  outOfBand = false,
): string {
  const verb = outOfBand ? 'exec-oob' : 'execute';
  return `${JSON.stringify({ [verb]: name, arguments: args, id })}\n`;
}

/** The first line of a server. */
export function greetingText(version: QmpVersion, capabilities: readonly string[]): string {
  return line({ QMP: { version: versionObject(version), capabilities } });
}

function versionObject({ major, minor, micro, package: added }: QmpVersion): JsonObject {
  return { qemu: { micro, minor, major }, package: added };
}

/** The answer to a command; what it returns must be JSON. */
export function answerText(value: unknown, id: unknown): string {
  return line({ return: value, ...(id !== undefined && { id }) });
}

/** The refusal of a command, or of something that is none. */
export function errorText(errorClass: string, description: string, id: unknown): string {
  const error = { class: errorClass, desc: description };
  return line({ ...(id !== undefined && { id }), error });
}

/** Something that has happened at a time in milliseconds since 1970. */
export function eventText(event: string, data: object | undefined, timeMs: number): string {
  const seconds = Math.floor(timeMs / 1000);
  const microseconds = Math.floor((timeMs - seconds * 1000) * 1000);
  return line({ timestamp: { seconds, microseconds }, event, ...(data && { data }) });
}

function line(message: object): string {
  return `${JSON.stringify(message)}\r\n`;
}

function errorOf({ error, id }: JsonObject): Message {
  const { class: errorClass, desc } = objectOr(error);
  if (typeof errorClass !== 'string' || typeof desc !== 'string') {
    throw protocolError('it sent an error without a class and a description');
  }
  return { type: 'error', id, errorClass, description: desc };
}

function eventOf({ event, data, timestamp }: JsonObject): Message {
  if (typeof event !== 'string') throw protocolError('it sent an event without a name');
  const { seconds, microseconds } = objectOr(timestamp);
  const timeMs = Number(seconds) * 1000 + Math.trunc(Number(microseconds) / 1000);
  return { type: 'event', event: { event, data: objectOr(data), timeMs } };
}

function greetingOf({ QMP }: JsonObject): Message {
  const { version, capabilities } = objectOr(QMP);
  const { qemu, package: distribution } = objectOr(version);
  const { major, minor, micro } = objectOr(qemu);
  const numbers = [major, minor, micro];
  if (!numbers.every((number) => Number.isSafeInteger(number))) {
    throw protocolError('it sent a greeting without a version');
  }
  const [first, second, third] = numbers as number[];
  const added = typeof distribution === 'string' ? distribution : '';
  return {
    type: 'greeting',
    version: { major: first, minor: second, micro: third, package: added },
    capabilities: Array.isArray(capabilities)
      ? capabilities.filter((name) => typeof name === 'string')
      : [],
  };
}

function objectOr(value: unknown): JsonObject {
  return typeof value === 'object' && value !== null ? (value as JsonObject) : {};
}
