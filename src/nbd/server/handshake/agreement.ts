import type { ServedContext, ServedExport } from '../export/index.js';
import type { OfferedTls } from '../socket/index.js';

/** What a server offers to a client that has just connected. */
export interface Offer {
  readonly exports: ReadonlyMap<string, ServedExport>;
  readonly tls: OfferedTls;
}

/** What a connection has agreed on so far. */
export interface Agreed {
  readonly offer: Offer;
  readonly secure: boolean;
  /** The client wants the 124 zeroes behind the answer to EXPORT_NAME. */
  readonly zeroes: boolean;
  structured: boolean;
  extended: boolean;
  /** The last SET_META_CONTEXT: contexts are worth nothing for another export than it named. */
  contexts: { readonly exportName: string; readonly granted: readonly ServedContext[] } | undefined;
}

/** The export that a connection has entered, and how it will be talked to. */
export interface Entered {
  readonly export: ServedExport;
  readonly structured: boolean;
  readonly extended: boolean;
  readonly contexts: readonly ServedContext[];
}

export type Outcome =
  /** The answer is said only where there is a place for one more client. */
  | ({ readonly type: 'transmission'; readonly answer: Uint8Array } & Entered)
  | { readonly type: 'starttls'; readonly zeroes: boolean }
  | { readonly type: 'end' };

/** What an option leads to, where it ends the loop. */
export type OptionResult = { readonly answer: Uint8Array; readonly outcome?: Outcome };

const NOTHING = new Uint8Array(0);

/** Begins the transmission. Contexts that were asked for another export are dropped. */
export function enterExport(
  agreed: Agreed,
  entered: ServedExport,
  answer: Uint8Array,
): OptionResult {
  const { structured, extended, contexts } = agreed;
  const granted = contexts?.exportName === entered.name ? contexts.granted : [];
  const common = { export: entered, structured, extended, contexts: granted };
  return { answer: NOTHING, outcome: { type: 'transmission', answer, ...common } };
}
