/** Checks of what callers hand in: a misspelt option must not be taken for one that was left out. */
import { closest } from 'fastest-levenshtein';

/** What an option must be, as far as it is checked here; its owner checks the rest. */
type Kind = 'any' | 'flag' | 'signal' | 'callback';

/** The kind of an option, worked out from its type; one that must be given is described for who left it out. */
type KindOf<T, K extends keyof T> =
  Record<never, never> extends Pick<T, K>
    ? NonNullable<T[K]> extends boolean
      ? 'flag'
      : NonNullable<T[K]> extends AbortSignal
        ? 'signal'
        : NonNullable<T[K]> extends (...args: never[]) => unknown
          ? 'callback'
          : 'any'
    : { readonly needed: string };

/** Every option of a type, so that the list and the type cannot drift apart. */
export type OptionKinds<T> = { readonly [K in keyof T]-?: KindOf<T, K> };

type AnyKind = Kind | { readonly needed: string };

/**
 * Throws unless `given` is an object with options of this list alone, all that are needed among them.
 *
 * @param owner whose options they are, as messages name it
 * @throws TypeError that names what is unknown and the nearest that is known, what is missing, or what is no flag,
 *   signal or function.
 */
export type OptionCheck<T> = (owner: string, given: T | undefined) => void;

/** Makes the check for the options of a type. */
export function optionCheck<T extends object>(kinds: OptionKinds<T>): OptionCheck<T> {
  // Without a prototype nothing is known but what is listed.
  const known: Readonly<Record<string, AnyKind>> = Object.assign(Object.create(null), kinds);
  const needed = Object.entries(known).filter(([, kind]) => typeof kind === 'object');
  return (owner, options) => {
    const given = objectOf(owner, options ?? {});
    // Requests come here as well, and this is the quickest way through a few keys.
    for (const key in given) {
      const kind = known[key];
      if (kind === undefined) throw unknownOption(owner, key, Object.keys(known));
      if (kind !== 'any' && given[key] !== undefined) checkKind(owner, key, kind, given[key]);
    }
    for (const [key, kind] of needed) {
      if (given[key] === undefined) throw missing(owner, key, (kind as { needed: string }).needed);
    }
  };
}

/** Throws unless an argument was given; `what` says what it can be. */
export function checkGiven(owner: string, name: string, value: unknown, what: string): void {
  if (value === undefined || value === null) throw missing(owner, name, what);
}

/** Throws unless `name` is one of those that there are. */
export function checkKnown(
  owner: string,
  what: string,
  name: unknown,
  there: readonly string[],
): void {
  if (there.includes(name as string)) return;
  throw new TypeError(
    `${owner} has no ${what} ${JSON.stringify(name)}: ${nearest(String(name), there)}`,
  );
}

function objectOf(owner: string, given: unknown): Record<string, unknown> {
  if (typeof given === 'object' && given !== null && !Array.isArray(given)) {
    return given as Record<string, unknown>;
  }
  const what = Array.isArray(given) ? 'a list' : JSON.stringify(given);
  throw new TypeError(`${owner} takes its options in an object, not ${what}`);
}

function checkKind(owner: string, key: string, kind: AnyKind, value: unknown): void {
  const wanted = wantedInstead(kind, value);
  if (wanted !== undefined) {
    throw new TypeError(`${owner}: ${key} must be ${wanted}, not ${shown(value)}`);
  }
}

function wantedInstead(kind: AnyKind, value: unknown): string | undefined {
  if (kind === 'flag') return typeof value === 'boolean' ? undefined : 'true or false';
  if (kind === 'signal') return value instanceof AbortSignal ? undefined : 'an AbortSignal';
  if (kind === 'callback') return typeof value === 'function' ? undefined : 'a function';
  return undefined;
}

function shown(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value);
  return typeof value === 'object' && value !== null ? 'an object' : String(value);
}

function unknownOption(owner: string, key: string, known: readonly string[]): TypeError {
  return new TypeError(`${owner} has no option ${JSON.stringify(key)}: ${nearest(key, known)}`);
}

/** The nearest name, and all of them where even that is far away. */
function nearest(name: string, known: readonly string[]): string {
  const all = known.join(', ');
  if (known.length === 0) return 'it has none';
  return `did you mean ${JSON.stringify(closest(name, known))}? It has ${all}`;
}

function missing(owner: string, key: string, what: string): TypeError {
  const article = key.endsWith('s') ? '' : /^[aeio]/.test(key) ? 'an ' : 'a ';
  return new TypeError(`${owner} needs ${article}${key}: ${what}`);
}
