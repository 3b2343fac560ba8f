/** Readers of what a peer says: each checks a JSON value, and keeps of it what is known here. */
import { protocolError, shown } from './failures.js';

/** Reads a value; `place` says where it stands, for the error. */
export type Reader<T> = (value: unknown, place: string) => T;

export const anything: Reader<unknown> = (value) => value;

export const text: Reader<string> = (value, place) => {
  if (typeof value === 'string') return value;
  throw unexpected(value, 'a text', place);
};

/** A whole number that is exact here. Some of QEMU's have 64 bits; those that matter are offsets and sizes. */
export const integer: Reader<number> = (value, place) => {
  if (Number.isSafeInteger(value)) return value as number;
  throw unexpected(value, 'a whole number below 2^53', place);
};

export const flag: Reader<boolean> = (value, place) => {
  if (typeof value === 'boolean') return value;
  throw unexpected(value, 'true or false', place);
};

export function optional<T>(reader: Reader<T>): Reader<T | undefined> {
  return (value, place) => (value === undefined ? undefined : reader(value, place));
}

export function list<T>(item: Reader<T>): Reader<T[]> {
  return (value, place) => {
    if (!Array.isArray(value)) throw unexpected(value, 'a list', place);
    return value.map((one, index) => item(one, `${place}[${index}]`));
  };
}

/** An object with these members; others are left out, and so are optional ones that are not there. */
export function members<T>(readers: { readonly [K in keyof T]-?: Reader<T[K]> }): Reader<T> {
  const entries = Object.entries(readers) as [string, Reader<unknown>][];
  return (value, place) => {
    if (typeof value !== 'object' || value === null) throw unexpected(value, 'an object', place);
    const read: Record<string, unknown> = {};
    for (const [key, reader] of entries) {
      const given = Object.hasOwn(value, key) ? (value as Record<string, unknown>)[key] : undefined;
      const member = reader(given, `${place}.${key}`);
      if (member !== undefined) read[key] = member;
    }
    return read as T;
  };
}

function unexpected(value: unknown, wanted: string, place: string): Error {
  const found = shown(JSON.stringify(value) ?? 'nothing').slice(0, 80);
  return protocolError(`in the answer to ${place} it sent ${found} for ${wanted}`);
}
