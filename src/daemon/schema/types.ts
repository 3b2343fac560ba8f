/**
 * Types of the arguments and answers of commands, as QEMU's QAPI has them. One description of a command serves for all that is known
 * of it: its arguments are checked by it, `query-qmp-schema` and docs/qmp.md are made from it, and the texts of a command
 * line are read by it.
 */

/** A type whose values are `T` here. */
export interface Type<T> {
  readonly shape: Shape;
  /** Never there: it only carries the type. */
  readonly value?: T;
}

export type Shape =
  | { readonly kind: 'text' | 'flag' | 'anything' | 'nothing' | 'number' }
  | { readonly kind: 'integer'; readonly isSize: boolean; readonly isUnsigned: boolean }
  | { readonly kind: 'word'; readonly name: string; readonly words: readonly string[] }
  | { readonly kind: 'list'; readonly item: Shape }
  | Struct
  | Union
  | { readonly kind: 'alternate'; readonly name: string; readonly choices: () => readonly Shape[] };

/** An object with these members and no others. */
export interface Struct {
  readonly kind: 'struct';
  /** Undefined for the arguments of a command. */
  readonly name: string | undefined;
  readonly members: Members;
}

/** An object whose other members depend on the word in one of them. */
export interface Union {
  readonly kind: 'union';
  readonly name: string;
  /** What all have. The tag is among them. */
  readonly base: Members;
  readonly tag: string;
  readonly branches: () => Readonly<Record<string, Members>>;
}

export interface Member {
  readonly shape: Shape;
  readonly isOptional: boolean;
  readonly about: string | undefined;
}

export type Members = Readonly<Record<string, Member>>;

/** A member that must be there, or may be left out. */
export type Field<T> = Type<T> | Optional<T>;

export interface Optional<T> extends Type<T> {
  readonly isOptional: true;
}

export type Fields = Readonly<Record<string, Field<unknown> & { readonly about?: string }>>;

type Needed<F> = { [K in keyof F]: F[K] extends Optional<unknown> ? never : K }[keyof F];
type ValueOf<F> = F extends Type<infer T> ? T : never;

/** The values of an object with such members. */
export type ValuesOf<F> = { readonly [K in Needed<F>]: ValueOf<F[K]> } & {
  readonly [K in Exclude<keyof F, Needed<F>>]?: ValueOf<F[K]>;
};

export const text: Type<string> = { shape: { kind: 'text' } };
export const flag: Type<boolean> = { shape: { kind: 'flag' } };
export const anything: Type<unknown> = { shape: { kind: 'anything' } };
export const nothing: Type<null> = { shape: { kind: 'nothing' } };

/** A whole number. */
export const integer: Type<number> = {
  shape: { kind: 'integer', isSize: false, isUnsigned: false },
};

/** A whole number of 0 or more. */
export const count: Type<number> = {
  shape: { kind: 'integer', isSize: false, isUnsigned: true },
};

/** Bytes; a command line may say them with a unit, such as 64K. */
export const size: Type<number> = {
  shape: { kind: 'integer', isSize: true, isUnsigned: false },
};

/** One of some words. */
export function word<const W extends string>(name: string, ...words: W[]): Type<W> {
  return { shape: { kind: 'word', name, words } };
}

export function list<T>(item: Type<T>): Type<readonly T[]> {
  return { shape: { kind: 'list', item: item.shape } };
}

export function struct<const F extends Fields>(name: string, fields: F): Type<ValuesOf<F>> {
  return { shape: { kind: 'struct', name, members: membersOf(fields) } };
}

/** Says that a member may be left out. */
export function optional<T>(type: Type<T>): Optional<T> {
  return { ...type, isOptional: true };
}

/** Says what a member is, for docs/qmp.md. */
export function about<F extends Field<unknown>>(
  field: F,
  what: string,
): F & { readonly about: string } {
  return { ...field, about: what };
}

/** An object of one of several forms. Its branches are asked for late, as they may have the union itself inside. */
export function union<T>(
  name: string,
  options: { base: Fields; tag: string; branches: () => Readonly<Record<string, Fields>> },
): Type<T> {
  const { base, tag, branches } = options;
  let known: Readonly<Record<string, Members>> | undefined;
  return {
    shape: {
      kind: 'union',
      name,
      tag,
      base: membersOf(base),
      branches: () => {
        known ??= Object.fromEntries(
          Object.entries(branches()).map(([key, fields]) => [key, membersOf(fields)]),
        );
        return known;
      },
    },
  };
}

/** A value of one of several types that JSON tells apart; they are asked for late. */
export function alternate<T>(name: string, choices: () => readonly Type<unknown>[]): Type<T> {
  return {
    shape: { kind: 'alternate', name, choices: () => choices().map(({ shape }) => shape) },
  };
}

export function membersOf(fields: Fields): Members {
  return Object.fromEntries(
    Object.entries(fields).map(([name, field]) => {
      const { shape, about: what } = field;
      return [name, { shape, isOptional: 'isOptional' in field, about: what }];
    }),
  );
}
