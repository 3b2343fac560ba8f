/** The errors by which a graph says no. */
import { type ErrorCode, LacunaError } from '../../errors/index.js';

/** What is named in a graph. */
export interface Named {
  /** What it is called in the graph. */
  readonly name: string;
  /** What it is, in front of its name: `node`, `export`. */
  readonly what: string;
}

/** `node 'disk'` */
export function called({ what, name }: Named): string {
  return `${what} '${name}'`;
}

/** Two users of a node do not go together, or a change would leave a graph that cannot be. */
export function conflict(message: string): LacunaError {
  return new LacunaError('ERR_GRAPH_CONFLICT', message);
}

export function unknownName(what: string, name: string, there: Iterable<string>): LacunaError {
  const names = [...there].map((each) => `'${each}'`).join(', ');
  const known = names === '' ? 'there is none' : `there are ${names}`;
  return failure('ERR_GRAPH_UNKNOWN', `there is no ${what} '${name}' in this graph: ${known}`);
}

export function nameTaken(name: string, by: Named): LacunaError {
  const message = `the name '${name}' is taken by ${by.what === 'export' ? 'an export' : 'a node'}: choose another, or remove that first`;
  return failure('ERR_GRAPH_EXISTS', message);
}

export function edgeChanged(edge: string, expected: Named, found: Named): LacunaError {
  const message = `${edge} leads to ${called(found)}, not to ${called(expected)} as expected: look at the graph again, and decide anew`;
  return failure('ERR_GRAPH_EDGE_CHANGED', message);
}

export function busy(message: string): LacunaError {
  return new LacunaError('ERR_GRAPH_BUSY', message, { retryable: true });
}

function failure(code: ErrorCode, message: string): LacunaError {
  return new LacunaError(code, message);
}
